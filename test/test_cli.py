"""hand-mesh run and eval, as one would call them, on a clip rendered from the hand model."""

import csv
import hashlib
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import trimesh

from hand_mesh_ros.cli.main import main as hand_mesh
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.sources import read_frames


def main(arguments):
    """A command with the method that needs no network: most of what is tested here is around it."""
    return hand_mesh([*arguments, '--method', 'fit'])


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
    np.testing.assert_allclose(line['camera'], [fx, fy, cx, cy], atol=1e-5)
    of_run = json.loads((tmp_path / 'run.json').read_text())
    assert of_run['hand_model']['sha256'] == load_hand_model().sha256
    hand = line['hands'][0]
    assert np.array(of_run['faces'][hand['side']]).max() == len(hand['vertices']) - 1
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


def test_the_default_method_is_the_network(clip, picture, maskhand_weights, tmp_path):
    arguments = ['run', str(picture), '--weights', str(maskhand_weights), '--sampling-steps', '2']
    assert hand_mesh([*arguments, '--out', str(tmp_path)]) == 0
    of_run = json.loads((tmp_path / 'run.json').read_text())
    assert (of_run['method'], of_run['backend']) == ('maskhand', 'torch')
    assert of_run['weights_hash'] == hashlib.sha256(maskhand_weights.read_bytes()).hexdigest()
    (line,) = lines_of(tmp_path)
    assert line['hands'] and 0.0 < line['timing_ms']['network'] < line['timing_ms']['reconstruct']


def test_images_of_one_name_keep_their_overlays_apart(picture, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / 'in' / folder).mkdir(parents=True)
        (tmp_path / 'in' / folder / 'frame.png').write_bytes(picture.read_bytes())
    assert main(['run', str(tmp_path / 'in'), '--out', str(tmp_path / 'out')]) == 0
    assert {p.name for p in (tmp_path / 'out/overlays').iterdir()} == {'a_frame.jpg', 'b_frame.jpg'}


def test_files_that_cannot_be_done_are_named_and_the_others_are_done(picture, tmp_path, capfd):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'a_empty.png').write_bytes(b'')
    assert cv2.imwrite(str(folder / 'b_wide.png'), np.zeros((16, 32767, 3), np.uint8))
    assert cv2.imwrite(str(folder / 'c_small.png'), np.zeros((4, 4, 3), np.uint8))
    os.link(picture, folder / os.fsdecode(b'd_\xe9.png'))
    assert main(['run', str(folder), '--out', str(tmp_path / 'out')]) == 1
    assert len(lines_of(tmp_path / 'out')) == len(os.listdir(tmp_path / 'out/overlays')) == 1
    output = capfd.readouterr()
    for name in ('a_empty.png', 'b_wide.png', 'c_small.png'):
        assert f'{folder / name}: ' in output.err
    assert '1 frames, 1 with a hand' in output.out and '3 files unreadable' in output.out


def test_a_video_that_is_cut_off_is_told(clip, tmp_path, capfd):
    frames = [cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR) for frame in read_frames(clip.video)]
    path = tmp_path / 'cut.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10.0, (640, 480))
    for frame in frames:
        writer.write(frame)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(['run', str(path), '--out', str(tmp_path / 'out')]) == 1
    done = len(lines_of(tmp_path / 'out'))
    assert 2 < done < 12
    output = capfd.readouterr()
    assert f'cut.avi: ends after {done} frames, about {15 - done} are missing' in output.err
    assert '1 files unreadable or incomplete' in output.out


def test_files_without_an_entry_are_counted(picture, tmp_path, capsys):
    for name in ('a.png', 'b.png', 'c.png'):
        (tmp_path / name).write_bytes(picture.read_bytes())
    (tmp_path / 'boxes.json').write_text('{"a.png": []}')
    (tmp_path / 'K.json').write_text('{"a.png": [500, 500, 320, 240], "b.png": [500, 500, 320, 240]}')
    options = [
        '--boxes',
        str(tmp_path / 'boxes.json'),
        '--cameras',
        str(tmp_path / 'K.json'),
        '--no-overlays',
    ]
    assert main(['run', str(tmp_path), '--out', str(tmp_path / 'out'), *options]) == 0
    output = capsys.readouterr().out
    assert f'2 files have no entry in {tmp_path / "boxes.json"}' in output
    assert f'1 files have no entry in {tmp_path / "K.json"}' in output


def test_intrinsics_of_larger_images_are_doubted(picture, tmp_path, capsys):
    for camera, doubted in (('1500,1500,960,540', True), ('600,600,319.5,239.5', False)):
        assert main(['run', str(picture), '--out', str(tmp_path), '--camera', camera]) == 0
        assert ('1 frames have their principal point' in capsys.readouterr().out) == doubted


def test_a_second_run_replaces_the_first_and_nothing_else(picture, tmp_path):
    for name in ('a.png', 'b.png'):
        (tmp_path / name).write_bytes(picture.read_bytes())
    out = tmp_path / 'out'
    command = ['run', str(tmp_path), '--out', str(out), '--meshes', 'ply']
    assert main(command) == 0
    (out / 'overlays/notes.txt').write_text('mine')
    (tmp_path / 'b.png').unlink()
    assert main(command) == 0
    assert len(lines_of(out)) == 1
    assert {p.name for p in (out / 'overlays').iterdir()} == {'a.jpg', 'notes.txt'}
    assert len(list((out / 'meshes').iterdir())) == len(lines_of(out)[0]['hands'])


def test_pictures_that_no_run_wrote_are_neither_read_nor_replaced(picture, tmp_path, capsys):
    (tmp_path / 'overlays').mkdir()
    mine = tmp_path / 'overlays' / 'frame.jpg'
    mine.write_bytes(picture.read_bytes())
    assert main(['run', str(mine), '--out', str(tmp_path)]) == 2
    assert 'frame.jpg: lies where the output goes' in capsys.readouterr().err
    assert main(['run', str(picture), '--out', str(tmp_path)]) == 2
    assert 'not from an earlier run' in capsys.readouterr().err
    assert mine.read_bytes() == picture.read_bytes() and not (tmp_path / 'hands.jsonl').exists()


@pytest.mark.parametrize('out', ['file', 'file/out', 'closed/out', os.fsdecode(b'caf\xe9')])
def test_an_output_that_cannot_be_written_is_named(picture, tmp_path, capfd, out):
    (tmp_path / 'file').write_text('not a folder')
    (tmp_path / 'closed').symlink_to('/proc/1')  # not even root may write there
    assert main(['run', str(picture), '--out', str(tmp_path / out)]) == 2
    assert f'{tmp_path}/{out[:3]}' in capfd.readouterr().err


@contextmanager
def full_disk(limit=10_000):
    """No file may grow beyond ``limit`` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told(picture, tmp_path, capsys):
    # Once before: Numba writes what it compiles to disk, too.
    assert main(['run', str(picture), '--out', str(tmp_path / 'out')]) == 0
    with full_disk():
        assert main(['run', str(picture), '--out', str(tmp_path / 'out')]) == 2
    assert f'{tmp_path / "out"}: cannot be written: File too large' in capsys.readouterr().err


def test_a_full_disk_is_told_of_a_video(clip, picture, tmp_path, capsys):
    assert main(['run', str(picture), '--out', str(tmp_path / 'out')]) == 0
    with full_disk(60_000):  # room for run.json
        assert main(['run', str(clip.video), '--out', str(tmp_path / 'out')]) == 2
    assert 'overlays/clip.mp4: cannot be written' in capsys.readouterr().err


def test_records_that_do_not_fit_on_the_disk_are_told(picture, tmp_path, capsys):
    (tmp_path / 'hands.jsonl').symlink_to('/dev/full')
    assert main(['run', str(picture), '--out', str(tmp_path)]) == 2
    assert f'{tmp_path}: cannot be written: No space left' in capsys.readouterr().err


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
        (['--hand-model', 'missing.npz'], 'missing.npz'),
        (['--camera', '0,0,1,1'], 'fx'),
        (['--boxes', 'missing.json'], 'missing.json'),
        (['--method', 'maskhand', '--weights', 'missing.safetensors'], 'missing.safetensors'),
        (['--method', 'maskhand', '--sampling-steps', '17'], 'sampling_steps'),
    ],
)
def test_options_that_cannot_work_fail_at_once_and_leave_what_was_there(
    picture, tmp_path, capsys, options, told
):
    (tmp_path / 'overlays').mkdir()
    earlier = tmp_path / 'hands.jsonl', tmp_path / 'overlays' / 'earlier.jpg'
    for path in earlier:
        path.write_text('of an earlier run')
    # Of a method given twice the last one counts.
    assert hand_mesh(['run', str(picture), '--method', 'fit', '--out', str(tmp_path), *options]) == 2
    assert told in capsys.readouterr().err
    assert [path.read_text() for path in earlier] == ['of an earlier run'] * 2


def test_the_library_runs_without_ros_and_without_torch():
    code = (
        'import sys, numpy, hand_mesh_ros\n'
        'with hand_mesh_ros.HandMeshEstimator("fit") as estimator:\n'
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
    with open(tmp_path / 'out/samples.csv', newline='') as file:
        rows = {row['method']: row for row in csv.DictReader(file)}
    assert set(rows) >= {'mediapipe', 'fit'}
    fit = rows['fit']
    assert fit['found'] == fit['side_correct'] == 'True'
    assert float(fit['pa_mpjpe_mm']) < 15.0
    assert float(fit['mpjpe_mm']) < 60.0
