"""What the package does where PyTorch was never installed: command line, masks, and the node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.datasets.demo_clip import DemoClip, render_demo_clip

ROOT = Path(__file__).parents[1]

#: What only training, exporting and PyTorch's own engine need.
ABSENT = ('onnx', 'onnxscript', 'safetensors', 'tensorrt', 'timm', 'torch', 'torchvision')


@pytest.fixture(scope='module')
def environment(tmp_path_factory) -> dict[str, str]:
    """In which those cannot be imported, in no process."""
    folder = tmp_path_factory.mktemp('absent')
    for name in ABSENT:
        (folder / f'{name}.py').write_text(f'raise ModuleNotFoundError("no {name}")\n')
    return {**os.environ, 'PYTHONPATH': str(folder)}


@pytest.fixture(scope='module')
def clip(tmp_path_factory) -> DemoClip:
    return render_demo_clip(tmp_path_factory.mktemp('clip') / 'hands.mp4', seconds=1.0, fps=20.0)


def hand_mesh(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'hand_mesh_ros.cli.main', *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=180, check=False
    )


def lines_and_run(out: Path) -> tuple[list[dict], dict]:
    lines = [json.loads(line) for line in (out / 'hands.jsonl').read_text().splitlines()]
    return lines, json.loads((out / 'run.json').read_text())


def test_the_default_method_makes_hands_of_a_video(environment, clip, tmp_path):
    done = hand_mesh(environment, 'run', clip.video, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    lines, run = lines_and_run(tmp_path)
    assert (run['method'], run['backend']) == ('maskhand', 'onnxruntime')
    assert sum(bool(line['hands']) for line in lines) >= len(lines) / 2


@pytest.mark.parametrize('refinement', ['outline', 'vertices'])
def test_silhouettes_are_hands_too(environment, tmp_path, refinement):
    (tmp_path / 'masks').mkdir()
    mask = np.zeros((240, 320), np.uint8)
    cv2.ellipse(mask, (160, 140), (35, 50), 0, 0, 360, 255, -1)
    for finger in range(4):
        cv2.line(mask, (138 + 15 * finger, 110), (134 + 17 * finger, 45), 255, 12)
    assert cv2.imwrite(str(tmp_path / 'masks' / 'hand.png'), mask)
    options = ['--method', 'mask2hand', '--masks', tmp_path / 'masks', '--refinement', refinement]
    done = hand_mesh(
        environment, 'run', *options, '--camera', '300,300,159.5,119.5', '--out', tmp_path / 'out'
    )
    assert done.returncode == 0, done.stderr
    lines, run = lines_and_run(tmp_path / 'out')
    assert (run['method'], run['backend']) == ('mask2hand', 'onnxruntime')
    assert len(lines[0]['hands']) == 1


def test_the_node_plays_the_demo(environment, clip, tmp_path):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed')
    pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
    done = hand_mesh(environment, 'demo', clip.video, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'hands seen' in done.stdout and list((tmp_path / 'overlays').iterdir())


@pytest.mark.parametrize(
    ('option', 'told'),
    [(['--backend', 'torch'], 'hand-mesh-ros[torch]'), (['--backend', 'tensorrt'], 'NVIDIA GPU')],
)
def test_an_engine_that_is_missing_is_told_in_one_line(environment, clip, tmp_path, option, told):
    if told == 'NVIDIA GPU' and any(Path('/dev').glob('nvidia[0-9]*')):
        pytest.skip('there is an NVIDIA GPU')
    done = hand_mesh(environment, 'run', clip.video, '--out', tmp_path, *option)
    assert done.returncode == 2 and told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
