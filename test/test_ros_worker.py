"""The parts that keep the node's delay and memory flat: newest frame only, bounded pairing, counters."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from hand_mesh_ros.ros.diagnostics import Statistics
from hand_mesh_ros.ros.pairing import StampPairing
from hand_mesh_ros.ros.worker import NewestFrameWorker


def test_a_slow_worker_gets_the_newest_frame_and_the_rest_is_dropped():
    started, go_on, done = threading.Event(), threading.Event(), threading.Event()
    processed, dropped = [], []

    def process(frame: int) -> None:
        started.set()
        assert go_on.wait(5)
        processed.append(frame)
        if frame == 9:
            done.set()

    worker = NewestFrameWorker(process, dropped.append)
    worker.start()
    worker.offer(0)
    assert started.wait(5)
    for frame in range(1, 10):
        worker.offer(frame)
    go_on.set()
    assert done.wait(5)
    assert worker.stop(5)
    assert processed == [0, 9] and dropped == list(range(1, 9))


def test_a_stopped_worker_takes_nothing_and_a_stuck_one_is_told():
    hang, started = threading.Event(), threading.Event()

    def process(frame: int) -> None:
        started.set()
        hang.wait(10)

    worker = NewestFrameWorker(process, lambda frame: None)
    worker.start()
    worker.offer(1)
    assert started.wait(5)
    assert not worker.stop(0.05)
    worker.offer(2)
    hang.set()
    assert worker.stop(5)
    assert NewestFrameWorker(process, lambda frame: None).stop(0.1), 'one that was never started'


def test_pairs_are_of_equal_stamps_whichever_comes_first():
    pairs, unpaired = [], []
    pairing = StampPairing(3, lambda a, b: pairs.append((a, b)), unpaired.append)
    pairing.add_first((1, 0), 'image 1')
    pairing.add_second((1, 1), 'boxes 1.1')
    pairing.add_second((1, 0), 'boxes 1')
    pairing.add_first((1, 1), 'image 1.1')
    assert pairs == [('image 1', 'boxes 1'), ('image 1.1', 'boxes 1.1')] and unpaired == []


def test_what_finds_no_other_half_does_not_pile_up():
    pairs, unpaired = [], []
    pairing = StampPairing(3, lambda a, b: pairs.append((a, b)), unpaired.append)
    for stamp in range(10):
        pairing.add_first((stamp, 0), stamp)
        pairing.add_second((100 + stamp, 0), stamp)
    assert unpaired == list(range(7))
    pairing.add_first((0, 0), 'again')  # a bag that starts over
    pairing.add_second((0, 0), 'boxes')
    assert pairs == [('again', 'boxes')] and unpaired == list(range(8))
    pairing.add_first((106, 0), 'too late')
    assert len(pairs) == 1


def test_statistics_count_since_the_start_and_by_window():
    statistics = Statistics()
    for i in range(10):
        statistics.frame_in()
        if i < 3:
            statistics.drop('malformed')
        else:
            statistics.frame_out(inference_ms=10.0 + i, latency_ms=20.0)
    first = statistics.snapshot()
    assert (first.frames_in, first.frames_out, first.drops) == (10, 7, {'malformed': 3})
    assert first.inference_ms[0] == 16.0 and first.latency_ms == (20.0, 20.0)
    statistics.drop('error')
    second = statistics.snapshot()
    assert second.drops == {'malformed': 3, 'error': 1} and second.new_drops == {'error': 1}
    assert second.frames_in == 10 and second.input_hz == 0.0
    assert statistics.silence_s < 5.0
