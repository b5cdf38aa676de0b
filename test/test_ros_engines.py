"""What runs the networks in hand_mesh_node: said, refused where it is missing, and its end the node's."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from ros_rig import check_hands, node_process, running_node

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.sources import read_frames

CAMERA = Camera(640, 480, 554.0, 554.0, 319.5, 239.5)


@pytest.fixture(scope='module')
def frames(tmp_path_factory) -> list[np.ndarray]:
    """A few images (480,640,3) of moving hands."""
    clip = render_demo_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', seconds=0.2, fps=30.0)
    return [frame.image for frame in read_frames(clip.video)]


def test_the_network_is_ready_before_the_first_image_and_says_what_it_is(frames, maskhand_weights):
    parameters = [
        'method:=maskhand',
        f'weights_path:={maskhand_weights}',
        'sampling_steps:=2',
        'threads:=1',
    ]
    with running_node('/learned', parameters) as (rig, process):
        (info,) = rig.model_infos
        assert (info.method, info.backend) == ('maskhand', 'torch')
        assert info.weights_hash == hashlib.sha256(maskhand_weights.read_bytes()).hexdigest()
        with HandMeshEstimator(weights=maskhand_weights, sampling_steps=2, streaming=True) as estimator:
            check_hands(rig, frames, CAMERA, estimator)
        assert rig.wait(lambda: 'network p50 (ms)' in rig.diagnostics, 5.0), rig.diagnostics
        assert 0.0 < float(rig.diagnostics['network p50 (ms)']) < float(rig.diagnostics['inference p95 (ms)'])
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0 and 'Traceback' not in process.output(), process.output()


def test_the_node_says_which_engine_it_took_and_why():
    with running_node('/chosen', ['method:=maskhand', 'backend:=auto']) as (rig, process):
        (info,) = rig.model_infos
        assert info.backend in ('onnxruntime', 'tensorrt')
        assert rig.wait(lambda: 'runs on' in process.output(), 5.0), process.output()
        (line,) = (line for line in process.output().splitlines() if 'runs on' in line)
        assert '[INFO]' in line and f'maskhand.safetensors runs on {info.backend}' in line
        # Without a GPU that is the second choice
        assert ('TensorRT needs' in line) == (info.backend == 'onnxruntime')


def test_an_engine_that_is_missing_ends_the_node_in_one_line():
    if any(Path('/dev').glob('nvidia[0-9]*')):
        pytest.skip('there is an NVIDIA GPU')
    with node_process('/nothing', ['method:=maskhand', 'backend:=tensorrt']) as process:
        assert process.wait(60) == 1
        told = [line for line in process.output().splitlines() if line]
    assert len(told) == 1 and '[FATAL]' in told[0] and 'TensorRT needs an NVIDIA GPU' in told[0], told


def test_an_engine_that_fails_ends_the_node(tmp_path):
    """So that launch starts it anew: a GPU that has failed once fails for good in that process."""
    (tmp_path / 'sitecustomize.py').write_text(
        'from hand_mesh_ros.errors import EngineError\n'
        'from hand_mesh_ros.estimator import HandMeshEstimator\n'
        'estimate = HandMeshEstimator.estimate\n'
        'def failing(self, image, *arguments, **options):\n'
        '    if image.min() == 200:\n'
        "        raise EngineError('illegal memory access')\n"
        '    return estimate(self, image, *arguments, **options)\n'
        'HandMeshEstimator.estimate = failing\n'
    )
    with running_node('/failing', [], {'PYTHONPATH': str(tmp_path)}) as (rig, process):
        rig.send(np.full((480, 640, 3), 200, np.uint8), CAMERA)
        assert process.wait(20) == 1
        assert '[FATAL]' in process.output() and 'illegal memory access' in process.output()
