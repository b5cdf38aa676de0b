"""hand-mesh run and eval, as one would call them, on a clip rendered from the hand model."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import trimesh

from hand_mesh_ros.cli.main import main
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.sources import read_frames


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    return render_demo_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', seconds=0.5)


@pytest.fixture(scope='module')
def picture(clip, tmp_path_factory):
    """One frame of the clip, as an image file."""
    path = tmp_path_factory.mktemp('picture') / 'frame.png'
    frame = next(iter(read_frames(clip.video)))
    assert cv2.imwrite(str(path), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    return path


def lines_of(out):
    return [json.loads(line) for line in (out / 'hands.jsonl').read_text().splitlines()]


def test_a_video_gives_a_line_a_frame_and_an_overlay(clip, tmp_path):
    assert main(['run', str(clip.video), '--out', str(tmp_path), '--cameras', str(clip.cameras)]) == 0
    lines = lines_of(tmp_path)
    assert [line['frame'] for line in lines] == list(range(15))
    np.testing.assert_allclose([line['stamp'] for line in lines], np.arange(15) / 30.0, atol=1e-5)
    overlays = list(read_frames(tmp_path / 'overlays' / 'clip.mp4'))
    assert len(overlays) == 15
    hands = [hand for line in lines for hand in line['hands']]
    assert len(hands) >= 10
    assert {hand['scale_source'] for hand in hands} == {'nominal_hand'}


def test_the_record_of_a_hand_is_complete_and_consistent(clip, picture, tmp_path):
    fx, fy, cx, cy = next(iter(json.loads(clip.cameras.read_text()).values()))
    camera = f'{fx},{fy},{cx},{cy}'
    assert main(['run', str(picture), '--out', str(tmp_path), '--camera', camera, '--vertices']) == 0
    (line,) = lines_of(tmp_path)
    assert (line['source'], line['width'], line['height']) == (str(picture), 640, 480)
    assert {'decode', 'detect', 'reconstruct', 'total'} <= line['timing_ms'].keys()
    hand = line['hands'][0]
    points = np.array(hand['keypoints_3d'])
    projected = points[:, :2] / points[:, 2:] * (fx, fy) + (cx, cy)
    np.testing.assert_allclose(projected, hand['keypoints_2d'], atol=0.01)
    mano = {name: np.array(values) for name, values in hand['mano'].items()}
    posed = load_hand_model(side=hand['side']).posed(**mano)
    np.testing.assert_allclose(posed.vertices, hand['vertices'], atol=1e-5)
    np.testing.assert_allclose(posed.keypoints, points, atol=1e-5)
    assert np.array(hand['joint_confidence']).shape == (21,)


def test_guessed_intrinsics_are_flagged(picture, tmp_path, capsys):
    assert main(['run', str(picture), '--out', str(tmp_path), '--fov', '50']) == 0
    assert lines_of(tmp_path)[0]['hands'][0]['scale_source'] == 'unknown'
    assert 'not metric' in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['ply', 'glb'])
def test_meshes_are_written_on_request(picture, tmp_path, kind):
    assert main(['run', str(picture), '--out', str(tmp_path), '--meshes', kind, '--no-overlays']) == 0
    paths = list((tmp_path / 'meshes').iterdir())
    assert len(paths) == len(lines_of(tmp_path)[0]['hands'])
    assert len(trimesh.load(paths[0], force='mesh').vertices) == 778
    assert not (tmp_path / 'overlays').exists()


def test_boxes_from_outside_decide_where_and_which_side(picture, tmp_path):
    assert main(['run', str(picture), '--out', str(tmp_path / 'free')]) == 0
    hand = lines_of(tmp_path / 'free')[0]['hands'][0]
    other = {'left': 'right', 'right': 'left'}[hand['side']]
    boxes = tmp_path / 'boxes.json'
    empty = {'side': 'right', 'bbox': [0, 0, 40, 40]}
    boxes.write_text(json.dumps({'frame.png': [{'side': other, 'bbox': hand['bbox']}, empty]}))
    assert main(['run', str(picture), '--out', str(tmp_path / 'boxed'), '--boxes', str(boxes)]) == 0
    (line,) = lines_of(tmp_path / 'boxed')
    assert [h['side'] for h in line['hands']] == [other]
    assert line['unresolved'] == [{'side': 'right', 'bbox': [0.0, 0.0, 40.0, 40.0]}]


def test_images_of_one_name_keep_their_overlays_apart(picture, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / 'in' / folder).mkdir(parents=True)
        (tmp_path / 'in' / folder / 'frame.png').write_bytes(picture.read_bytes())
    assert main(['run', str(tmp_path / 'in'), '--out', str(tmp_path / 'out')]) == 0
    assert {p.name for p in (tmp_path / 'out/overlays').iterdir()} == {'a_frame.jpg', 'b_frame.jpg'}


def test_a_damaged_image_is_told_and_the_others_are_done(picture, tmp_path, capfd):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/a.jpg').write_bytes(b'no image')
    (tmp_path / 'in/b.png').write_bytes(picture.read_bytes())
    assert main(['run', str(tmp_path / 'in'), '--out', str(tmp_path / 'out')]) == 1
    assert len(lines_of(tmp_path / 'out')) == 1
    output = capfd.readouterr()
    assert 'a.jpg' in output.out + output.err
    assert '1 files unreadable' in output.out


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (['--fov', '0'], 'field of view'),
        (['--hand-length', '0.5'], '0.5'),
        (['--hand-model', 'missing.pkl'], 'missing.pkl'),
        (['--boxes', 'missing.json'], 'missing.json'),
    ],
)
def test_options_that_cannot_work_fail_at_once(picture, tmp_path, capsys, options, told):
    assert main(['run', str(picture), '--out', str(tmp_path), *options]) == 2
    assert told in capsys.readouterr().err


def test_the_library_runs_without_ros_and_without_torch():
    code = (
        'import sys, numpy, hand_mesh_ros\n'
        'with hand_mesh_ros.HandMeshEstimator() as estimator:\n'
        '    assert estimator.estimate(numpy.zeros((48, 64, 3), numpy.uint8)).hands == ()\n'
        'assert not {"rclpy", "torch", "smplx"} & set(sys.modules)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_eval_compares_the_methods_on_annotated_images(clip, picture, tmp_path, capsys):
    truth = np.load(clip.truth)
    points, pixels = truth['keypoints_3d'][0, 0], truth['keypoints_2d'][0, 0]  # first frame, right hand
    camera = next(iter(json.loads(clip.cameras.read_text()).values()))
    sample = {
        'id': 'frame',
        'set': 'clip',
        'image': str(picture),
        'side': 'right',
        'K': camera,
        'j3d': points.tolist(),
        'j2d': pixels.tolist(),
    }
    index = tmp_path / 'index.json'
    index.write_text(json.dumps({'samples': [sample]}))
    assert main(['eval', str(index), '--out', str(tmp_path / 'out')]) == 0
    table = capsys.readouterr().out
    assert '| clip | mediapipe |' in table and '| clip | fit |' in table
    rows = (tmp_path / 'out/samples.csv').read_text().splitlines()
    assert len(rows) == 3
    fit = dict(zip(rows[0].split(','), rows[2].split(','), strict=True))
    assert fit['found'] == fit['side_right'] == 'True'
    assert float(fit['pa_mpjpe_mm']) < 15.0
    assert float(fit['mpjpe_mm']) < 60.0
