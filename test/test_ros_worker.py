"""The parts that keep the node's delay and memory flat: newest frame only, bounded pairing, counters."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from hand_mesh_ros.ros.diagnostics import Statistics, silence_hint
from hand_mesh_ros.ros.pairing import HastyPairing, StampPairing, Waiting
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


@pytest.fixture
def pairs() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def unpaired() -> list[str]:
    return []


@pytest.fixture
def pairing(pairs, unpaired) -> StampPairing[str, str]:
    """One that lets three seconds of messages wait, and thirty letters in all."""
    return StampPairing(
        Waiting(3.0, 30, len), Waiting(3.0, 30, len), lambda a, b: pairs.append((a, b)), unpaired.append
    )


def test_pairs_are_of_equal_stamps_whichever_comes_first(pairing, pairs, unpaired):
    pairing.add_first((1, 0), 'image 1')
    pairing.add_second((1, 1), 'boxes 1.1')
    pairing.add_second((1, 0), 'boxes 1')
    pairing.add_first((1, 1), 'image 1.1')
    assert pairs == [('image 1', 'boxes 1'), ('image 1.1', 'boxes 1.1')] and unpaired == []


def test_how_late_the_other_half_may_be_does_not_depend_on_the_rate(pairing, pairs, unpaired):
    for i in range(30):
        pairing.add_first((2, i * 10**8), f'{i % 10}')
    pairing.add_second((2, 0), 'three seconds late')
    assert pairs == [('0', 'three seconds late')] and unpaired == []
    pairing.add_first((5, 5 * 10**8), 'x')
    assert unpaired == ['1', '2', '3', '4']


def test_what_finds_no_other_half_does_not_pile_up(pairing, pairs, unpaired):
    for stamp in range(10):
        pairing.add_first((stamp, 0), str(stamp))
        pairing.add_second((100 + stamp, 0), str(stamp))
    assert unpaired == list('012345')
    pairing.add_first((0, 0), 'again')  # a bag that starts over
    assert unpaired == list('0123456789')
    pairing.add_second((0, 0), 'boxes')
    assert pairs == [('again', 'boxes')]
    pairing.add_first((101, 0), 'too late')
    assert len(pairs) == 1


def test_large_messages_wait_in_smaller_numbers(pairing, pairs, unpaired):
    pairing.add_first((1, 0), 'a' * 20)
    pairing.add_first((1, 1), 'b' * 20)
    pairing.add_first((1, 2), 'c' * 40)
    assert unpaired == ['a' * 20, 'b' * 20]
    pairing.add_second((1, 2), 'boxes')
    assert pairs == [('c' * 40, 'boxes')], 'the newest waits, however large'


class Masks:
    """Masks that wait for depth, at most a fifth of a second, by a clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.given_on: list[tuple[str, str | None]] = []
        self.pairing: HastyPairing[str, str] = HastyPairing(
            Waiting(1.0, 30, lambda waiting: len(waiting[1])),
            Waiting(1.0, 30, len),
            0.2,
            lambda mask, depth: self.given_on.append((mask, depth)),
            clock=lambda: self.now_s,
        )


def test_a_mask_goes_on_with_its_depth_whichever_comes_first():
    masks = Masks()
    masks.pairing.add_first((1, 0), 'mask 1')
    masks.pairing.expire()
    assert masks.given_on == []
    masks.pairing.add_second((1, 0), 'depth 1')
    masks.pairing.add_second((2, 0), 'depth 2')
    masks.pairing.add_first((2, 0), 'mask 2')
    assert masks.given_on == [('mask 1', 'depth 1'), ('mask 2', 'depth 2')]


def test_a_mask_does_not_wait_long_for_depth():
    masks = Masks()
    masks.pairing.add_first((1, 0), 'early')
    masks.now_s += 0.15
    masks.pairing.add_first((1, 1), 'late')
    masks.now_s += 0.1
    masks.pairing.expire()
    assert masks.given_on == [('early', None)]
    masks.pairing.add_second((1, 1), 'depth')
    assert masks.given_on[1:] == [('late', 'depth')]


def test_a_mask_that_depth_has_passed_by_goes_on_at_once():
    masks = Masks()
    masks.pairing.add_first((5, 0), 'waits')
    masks.pairing.add_second((5, 5 * 10**8), 'depth')
    masks.pairing.add_first((5, 4 * 10**8), 'is older than the depth')
    masks.pairing.add_first((5, 5 * 10**8), 'has one')
    assert masks.given_on == [('waits', None), ('is older than the depth', None), ('has one', 'depth')]
    masks.pairing.add_first((1, 0), 'of a bag that starts over')
    assert len(masks.given_on) == 3, 'its depth starts over, too'
    masks.pairing.add_second((1, 0), 'depth')
    assert masks.given_on[3:] == [('of a bag that starts over', 'depth')]


def test_masks_and_depth_do_not_pile_up():
    masks = Masks()
    for i in range(20):
        masks.pairing.add_first((1, i), 'x' * 10)
    assert len(masks.given_on) == 17, 'in all, thirty letters wait'
    masks = Masks()
    for i in range(20):
        masks.pairing.add_second((1, i), 'x' * 10)
    for i in range(20):
        masks.pairing.add_first((1, i), f'{i}')
    assert [mask for mask, depth in masks.given_on if depth] == ['17', '18', '19']


def test_statistics_count_since_the_start_and_by_window():
    statistics = Statistics()
    for i in range(10):
        statistics.frame_in()
        if i < 3:
            statistics.drop('malformed')
        else:
            statistics.frame_out(10.0 + i, 20.0, {'network': 7.0, 'own': 2.0} if i >= 9 else None)
    first = statistics.snapshot()
    assert (first.frames_in, first.frames_out, first.drops) == (10, 7, {'malformed': 3})
    assert first.inference_ms[0] == 16.0 and first.latency_ms == (20.0, 20.0)
    assert first.stages_ms == {'network': (7.0, 7.0), 'own': (2.0, 2.0)}, 'of the frames with a hand'
    statistics.lack('depth')
    statistics.drop('error')
    second = statistics.snapshot()
    assert second.drops == {'malformed': 3, 'error': 1} and second.new_drops == {'error': 1}
    assert second.lacks == second.new_lacks == {'depth': 1} and statistics.snapshot().new_lacks == {}
    assert second.frames_in == 10 and second.input_hz == 0.0
    assert statistics.silence_s < 5.0


def test_delays_of_decades_are_none():
    statistics = Statistics()
    for latency_ms in (30.0, 1.7e12, -1.7e12):
        statistics.frame_out(inference_ms=10.0, latency_ms=latency_ms)
    snapshot = statistics.snapshot()
    assert snapshot.frames_out == 3 and snapshot.latency_ms == (30.0, 30.0)


def profile(reliability: ReliabilityPolicy) -> QoSProfile:
    return QoSProfile(depth=1, reliability=reliability)


@pytest.mark.parametrize(
    ('image_type', 'offered', 'told'),
    [
        ('Image', ReliabilityPolicy.RELIABLE, 'type and QoS fit'),
        ('Image', ReliabilityPolicy.BEST_EFFORT, 'reliable'),
        ('CompressedImage', ReliabilityPolicy.RELIABLE, 'set image_transport: compressed'),
        ('PointCloud2', ReliabilityPolicy.RELIABLE, 'publishes sensor_msgs/msg/PointCloud2'),
    ],
)
def test_silence_is_explained_by_what_is_offered(image_type, offered, told):
    publisher = TopicEndpointInfo(topic_type=f'sensor_msgs/msg/{image_type}', qos_profile=profile(offered))
    asked = profile(ReliabilityPolicy.RELIABLE)
    assert told in silence_hint('/camera/image', 'raw', asked, [publisher])
    assert 'nobody publishes /camera/image' in silence_hint('/camera/image', 'raw', asked, [])


def test_a_program_ends_with_its_code_though_a_thread_is_in_pytorch():
    """Where an image does not end in time; Python's own end aborts there."""
    pytest.importorskip('torch', reason='PyTorch is not installed')
    code = (
        'import threading, torch\n'
        'from hand_mesh_ros.ros.running import exit_program\n'
        'started = threading.Event()\n'
        'def work():\n'
        '    while True:\n'
        '        torch.ones(200, 200) @ torch.ones(200, 200)\n'
        '        started.set()\n'
        'threading.Thread(target=work, daemon=True).start()\n'
        'started.wait()\n'
        'print("all told")\n'
        'exit_program(3)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, 'all told\n'), done.stderr
