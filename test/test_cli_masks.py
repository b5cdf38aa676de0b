"""hand-mesh run on masks and depth images, as one would call it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from maskhand_file import UPRIGHT

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.cli.main import main as hand_mesh
from hand_mesh_ros.depth_files import read_depth, write_depth, write_mask
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.rendering.zbuffer import rasterise
from hand_mesh_ros.sources import read_image

CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
NUMBERS = '300,300,159.5,119.5'
NAMES = ('0001', '0002')


@dataclass(frozen=True)
class Recording:
    """Folders with files of one name for each frame."""

    images: Path
    masks: Path
    depth: Path


@pytest.fixture
def recording(tmp_path) -> Recording:
    """A flat right hand, upright, half a metre away, in two frames; images are black and show nothing."""
    model = load_hand_model()
    posed = model.posed(UPRIGHT, np.zeros(45), np.zeros(10), np.zeros(3))
    found = Recording(*(tmp_path / name for name in ('images', 'masks', 'depth')))
    for folder in (found.images, found.masks, found.depth):
        folder.mkdir()
    for x, name in zip((0.0, 0.03), NAMES, strict=True):
        vertices = posed.vertices - posed.keypoints.mean(0) + [x, 0.0, 0.5]
        depth = rasterise(vertices, model.faces, CAMERA).depth
        write_mask(found.masks / f'{name}.png', depth > 0)
        write_depth(found.depth / f'{name}.png', depth)
        cv2.imwrite(str(found.images / f'{name}.jpg'), np.zeros((240, 320, 3), np.uint8))
    return found


@pytest.fixture
def run(tmp_path, mask2hand_weights):
    """The command with the small network; its exit status."""

    def call(*arguments: object) -> int:
        options = ['--method', 'mask2hand', '--weights', mask2hand_weights, '--out', tmp_path / 'out']
        return hand_mesh(['run', *map(str, [*options, *arguments])])

    return call


def lines(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / 'out/hands.jsonl').read_text().splitlines()]


def test_a_folder_of_masks_is_enough(recording, run, tmp_path):
    assert run('--masks', recording.masks, '--camera', NUMBERS) == 0
    found = lines(tmp_path)
    assert [Path(line['source']).name for line in found] == ['0001.png', '0002.png']
    for line in found:
        (hand,) = line['hands']
        assert (hand['side'], hand['scale_source']) == ('right', 'nominal_hand')
        assert (line['width'], line['height']) == (320, 240) and line['timing_ms']['network'] > 0.0
    # The overlay lies over the mask: where there is neither, it is black
    overlay = read_image(tmp_path / 'out/overlays/0001.jpg')
    assert overlay.shape == (240, 320, 3) and overlay[:20].max() < 10 and overlay.max() > 100
    assert run('--masks', recording.masks, '--side', 'left') == 0
    (hand,) = lines(tmp_path)[0]['hands']
    assert (hand['side'], hand['scale_source']) == ('left', 'unknown')


def test_with_images_overlays_are_drawn_over_them(recording, run, tmp_path):
    assert run(recording.images, '--masks', recording.masks, '--camera', NUMBERS) == 0
    found = lines(tmp_path)
    assert [Path(line['source']).name for line in found] == ['0001.jpg', '0002.jpg']
    assert all(len(line['hands']) == 1 for line in found)
    (hand,) = found[0]['hands']
    overlay = read_image(tmp_path / 'out/overlays/0001.jpg')
    # Here the mesh, and nothing of the mask, is seen over the black picture
    x, y = np.array(hand['keypoints_2d'])[9].round().astype(int)
    assert overlay[y, x].max() > 50 and overlay[:20].max() < 10


def test_depth_makes_hands_metric(recording, run, tmp_path, capsys):
    options = ['--depth', recording.depth, '--camera', NUMBERS]
    assert run('--masks', recording.masks, *options, '--vertices') == 0
    for line in lines(tmp_path):
        (hand,) = line['hands']
        assert hand['scale_source'] == 'depth' and line['timing_ms']['surface'] > 0.0
        assert 0.45 < np.array(hand['keypoints_3d'])[:, 2].mean() < 0.55
    (recording.depth / '0002.png').unlink()
    assert run('--masks', recording.masks, *options) == 0
    assert [line['hands'][0]['scale_source'] for line in lines(tmp_path)] == ['depth', 'nominal_hand']
    assert f'1 frames have no depth image in {recording.depth}' in capsys.readouterr().out


def test_a_folder_of_depth_images_is_enough(recording, run, tmp_path):
    for name in NAMES:  # an arm that comes in from below, before a wall
        metres = read_depth(recording.depth / f'{name}.png')
        wrist = np.flatnonzero(metres.any(axis=1))[-1]
        columns = np.flatnonzero(metres[wrist - 2])
        metres[metres == 0] = 1.5
        metres[wrist - 2 :, columns[0] : columns[-1] + 1] = 0.5
        write_depth(recording.depth / f'{name}.png', metres)
    np.save(recording.depth / '0003.npy', metres)
    assert run('--depth', recording.depth, '--camera', NUMBERS) == 0
    found = lines(tmp_path)
    assert [Path(line['source']).name for line in found] == ['0001.png', '0002.png', '0003.npy']
    assert [hand['scale_source'] for line in found for hand in line['hands']] == ['depth'] * 3
    overlay = read_image(tmp_path / 'out/overlays/0003.jpg')
    assert 10 < overlay[5, 5].max() < 100  # what is far is dark


def test_a_missing_or_wrong_file_is_told_and_the_others_are_done(recording, run, tmp_path, capfd):
    (recording.masks / '0001.png').unlink()
    assert run(recording.images, '--masks', recording.masks) == 1
    assert [Path(line['source']).name for line in lines(tmp_path)] == ['0002.jpg']
    output = capfd.readouterr()
    assert 'has no 0001.png' in output.err and '1 files unreadable' in output.out
    write_mask(recording.masks / '0001.png', np.ones((24, 32), bool))
    assert run(recording.images, '--masks', recording.masks) == 1
    assert '0001.jpg: mask is 32x24, its camera 320x240' in capfd.readouterr().err
    (recording.masks / '0001.png').write_bytes(b'no picture')
    assert run('--masks', recording.masks) == 1
    assert '0001.png: cannot be read as an image' in capfd.readouterr().err
    assert len(lines(tmp_path)) == 1


def test_masks_and_depth_among_the_images_are_not_looked_at_as_such(recording, run, tmp_path):
    everything = recording.images.parent
    assert run(everything, '--masks', recording.masks, '--depth', recording.depth, '--camera', NUMBERS) == 0
    assert [Path(line['source']).name for line in lines(tmp_path)] == ['0001.jpg', '0002.jpg']


def test_images_take_depth_with_other_methods_too(recording, tmp_path, capsys):
    options = ['--method', 'fit', '--out', str(tmp_path / 'out'), '--camera', NUMBERS]
    depth = ['--depth', str(recording.depth)]
    assert hand_mesh(['run', str(recording.images), *options, *depth]) == 0
    assert [line['hands'] for line in lines(tmp_path)] == [[], []]  # they are black
    assert 'surface' in lines(tmp_path)[0]['timing_ms']


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (['--method', 'mask2hand'], 'mask2hand needs --masks DIR or --depth DIR'),
        (['--method', 'mask2hand', '--masks', 'missing'], 'missing: no such folder'),
        (['--method', 'fit', '--masks', 'masks'], '--masks is for --method mask2hand'),
        (['--method', 'fit'], 'fit needs a SOURCE'),
        (['--method', 'mask2hand', '--depth', 'depth'], '--depth needs the intrinsics'),
        (['--method', 'mask2hand', '--masks', 'images/empty'], 'no file in it'),
    ],
)
def test_options_that_do_not_go_together_are_told(recording, tmp_path, capsys, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    (recording.images / 'empty').mkdir()
    assert hand_mesh(['run', *options, '--out', 'out']) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
