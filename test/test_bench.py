"""``hand-mesh bench``: what it tells, and what it says where it cannot measure. No speed is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.benchmark.estimation import Measured, Task, measured
from hand_mesh_ros.benchmark.footage import SIZE, Footage, decoded, footage_of, rendered_footage
from hand_mesh_ros.benchmark.report import BARS, Report
from hand_mesh_ros.benchmark.timing import Times, alternately
from hand_mesh_ros.cli.main import main
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.inference.engine import EngineSettings, missing

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def footage() -> Footage:
    return rendered_footage(6)


@pytest.fixture(scope='module')
def of_images(footage: Footage) -> Measured:
    return measured(Task('maskhand', EngineSettings('onnxruntime', threads=1), footage, warm_up=2, rounds=1))


def medians(of: Measured) -> dict[str, float]:
    assert all(0.0 <= row.median_ms <= row.p95_ms for row in of.rows)
    return {row.stage: row.median_ms for row in of.rows}


def test_frames_are_the_same_each_time_and_show_a_hand(footage):
    assert rendered_footage(6) == footage
    (image, *_), (pair, *_) = decoded(footage.frames), decoded(footage.two_hands)
    assert image.shape == pair.shape == (SIZE[1], SIZE[0], 3)
    assert len(footage.frames) == len(footage.masks) == 6


def test_every_stage_of_the_library_is_told(of_images):
    stages = medians(of_images)
    assert {'decode', 'detector', 'detect', 'crop', 'network', 'encoder', 'decoder', 'place'} < set(stages)
    assert {'library', 'library, two hands', 'network, one hand', 'network, two hands'} < set(stages)
    assert of_images.hands_seen > 0.9
    assert of_images.peer is not None and of_images.peer.median_ms > 0.0
    assert set(BARS) - {'node_share_ms'} <= set(of_images.figures)
    moments = of_images.memory_mib
    assert moments['before loading'] < moments['after loading'] <= moments['peak'] >= moments['after running']


def test_stages_add_up_to_no_more_than_the_whole_call(footage):
    """Medians of parts need not add up to the median of the whole, but to no more than its slow frames."""
    of_masks = measured(Task('mask2hand', EngineSettings('onnxruntime', threads=1), footage, 2, 1))
    stages = medians(of_masks)
    assert set(stages) == {'detect', 'crop', 'network', 'place', 'outline', 'library'}
    longest = {row.stage: row.p95_ms for row in of_masks.rows}
    assert sum(stages[name] for name in stages if name != 'library') <= longest['library']
    assert of_masks.peer is None and of_masks.hands_seen == 1.0


def test_the_sum_of_stages_is_that_of_frames(of_images):
    stages = medians(of_images)
    total = of_images.figures['crop_to_vertices_ms']
    assert total is not None and stages['network'] <= total <= max(row.p95_ms for row in of_images.rows)


def test_the_command_writes_one_table_and_one_object(tmp_path, capsys):
    out = tmp_path / 'bench.json'
    options = ['--backend', 'onnxruntime', 'tensorrt', '--method', 'maskhand', '--threads', '1']
    short = ['--frames', '4', '--rounds', '1', '--warm-up', '1']
    assert main(['bench', *options, *short, '--json', str(out)]) == 0
    figures = json.loads(out.read_text())
    assert {'rows', 'peer', 'ratios', 'machine', 'missing', 'memory', 'floors'} <= set(figures)
    assert all(set(row) == {'backend', 'method', 'stage', 'median_ms', 'p95_ms'} for row in figures['rows'])
    assert figures['peer']['mediapipe_ms'] > 0.0
    assert {'library_over_mediapipe', 'two_hands_over_one', 'crop_to_vertices_ms'} <= set(figures['ratios'])
    assert figures['machine']['threads'] == 1 and figures['machine']['versions']['numpy'] == np.__version__
    assert figures['floors'][0]['floor ms'] > 0.0
    printed = capsys.readouterr().out
    assert '| onnxruntime | maskhand | encoder |' in printed and 'library_over_mediapipe' in printed
    why = missing('tensorrt')
    if why:
        assert figures['missing'] == {'tensorrt': why} and why in printed and '\n' not in why


def test_a_source_of_ones_own_is_resized(tmp_path):
    cv2.imwrite(str(tmp_path / 'wide.png'), np.zeros((90, 200, 3), np.uint8))
    (image,) = decoded(footage_of(tmp_path, 5).frames)
    assert image.shape == (SIZE[1], SIZE[0], 3)


def test_a_source_without_hands_is_told(tmp_path):
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((480, 640, 3), 90, np.uint8))
    task = Task('maskhand', EngineSettings('onnxruntime', threads=1), footage_of(tmp_path, 2), 0, 1)
    with pytest.raises(ConfigurationError, match='no hand is seen'):
        measured(task)


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (['--source', 'no/such/video.mp4'], 'no such file'),
        (['--source', 'pyproject.toml'], 'neither image nor video'),
        (['--frames', '1'], '--frames must be at least 2'),
        (['--threads', '-1'], '--threads must be at least 0'),
        (['--json', 'no/such/folder/out.json'], 'no such folder'),
        (['--json', 'test'], 'is a folder'),
    ],
)
def test_what_cannot_be_is_told_in_one_line(options, told):
    command = [sys.executable, '-m', 'hand_mesh_ros.cli.main', 'bench', *options]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_bar_that_is_not_reached_is_told():
    report = Report(
        {'cpu': 'c', 'cores': 1, 'threads': 1, 'memory_gib': 1, 'gpu': None, 'os': 'o', 'python': '3'},
        {'count': 1, 'name': 'n', 'rounds': 1},
    )
    report.ratios = {'library_over_mediapipe': 1.4, 'crop_to_vertices_ms': 15.1}
    printed = report.as_markdown()
    assert '| library_over_mediapipe | 1.40 | 1.5 | yes |' in printed
    assert '| crop_to_vertices_ms | 15.10 | 15 | no |' in printed


def test_stages_take_turns_and_the_first_ones_do_not_count():
    done: list[str] = []
    times = alternately({'a': lambda: done.append('a'), 'b': lambda: done.append('b')}, 1, 2)
    assert done == ['a', 'b'] * 3
    assert [len(spent) for spent in times.ms.values()] == [2, 2]
    assert np.isnan(Times().median('a'))


def test_without_a_gpu_that_is_told():
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    with pytest.raises(ConfigurationError, match='needs an NVIDIA GPU'):
        from hand_mesh_ros.benchmark.gpu import measured_on_gpu

        measured_on_gpu()


def test_what_is_measured_on_a_gpu_runs_without_one(capsys):
    pytest.importorskip('torch', reason='PyTorch is not installed')
    from hand_mesh_ros.benchmark.gpu import BATCHES, as_markdown, measured_on_gpu

    figures = measured_on_gpu(('default',), repeats=1, device='cpu')
    assert [row['batch'] for row in figures['rows']] == list(BATCHES)
    assert all(0.0 < row['floor_ms'] < row['median_ms'] for row in figures['rows'])
    assert '| default | torch | fp32 | 4 |' in as_markdown(figures)
    assert json.loads(json.dumps(figures)) == figures
