"""FreiHAND in its published layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_hand import HANDS, SMALL, check, write_json, write_picture

from hand_mesh_ros.datasets.freihand import read_freihand
from hand_mesh_ros.datasets.opening import open_dataset
from hand_mesh_ros.errors import FileFormatError


def write_freihand(folder: Path, split: str = 'evaluation') -> Path:
    folder.mkdir(exist_ok=True)
    write_json(folder / f'{split}_K.json', [SMALL.K.tolist()] * 2)
    write_json(folder / f'{split}_xyz.json', [hand.keypoints.tolist() for hand in HANDS])
    write_json(folder / f'{split}_verts.json', [hand.vertices.tolist() for hand in HANDS])
    write_json(folder / f'{split}_scale.json', [0.03, 0.03])
    for number in range(2 if split == 'evaluation' else 8):
        path = folder / split / 'rgb' / f'{number:08d}.jpg'
        write_picture(path, HANDS[number % 2].keypoints, SMALL)
    return folder


def test_freihand_evaluation(tmp_path: Path) -> None:
    hands = open_dataset(write_freihand(tmp_path))
    assert [hand.id for hand in hands] == ['freihand_evaluation_00000000', 'freihand_evaluation_00000001']
    for hand, truth in zip(hands, HANDS, strict=True):
        assert (hand.dataset, hand.side, hand.bbox_px) == ('freihand', 'right', None)
        check(hand, truth, SMALL)


def test_freihand_training_has_every_sample_before_four_backgrounds(tmp_path: Path) -> None:
    hands = open_dataset(write_freihand(tmp_path, 'training'), 'training')
    assert [hand.image.name for hand in hands] == [f'{number:08d}.jpg' for number in range(8)]
    for number, hand in enumerate(hands):
        check(hand, HANDS[number % 2], SMALL)


def test_masks_are_those_of_the_first_background(tmp_path: Path) -> None:
    folder = write_freihand(tmp_path, 'training')
    for name in ('00000001.jpg', '00000002.jpg'):
        write_picture(folder / 'training' / 'mask' / name, None, SMALL)
    hands = open_dataset(folder, 'training')
    assert [hand.mask is not None for hand in hands] == [False, True, *[False] * 6]
    assert hands[1].mask == folder / 'training/mask/00000001.jpg'


@pytest.mark.parametrize('name', ['evaluation_K.json', 'evaluation_xyz.json', 'evaluation_verts.json'])
@pytest.mark.parametrize(
    'content',
    [
        *('', '{}', 'null', '[', '[[1.0, 2.0]]', '["text", "text"]', '[null, null]', '[]', '[' * 100_000),
        *('[[[NaN, 0, 0], [0, 1, 0], [0, 0, 1]]]', '[[[1, 0, 0], [0, 1, 0], [0, 0, 1]]] more'),
    ],
)
def test_freihand_files_of_another_form_are_refused(tmp_path: Path, name: str, content: str) -> None:
    (write_freihand(tmp_path) / name).write_text(content, encoding='utf-8')
    with pytest.raises(FileFormatError, match=rf'{name}.*FreiHAND_pub_v2_eval\.zip'):
        read_freihand(tmp_path)


@pytest.mark.parametrize('name', ['evaluation_xyz.json', 'evaluation/rgb/00000001.jpg'])
def test_freihand_files_that_are_missing_are_named(tmp_path: Path, name: str) -> None:
    (write_freihand(tmp_path) / name).unlink()
    with pytest.raises(FileFormatError, match=rf'{name}.*unpack'):
        read_freihand(tmp_path)


def test_a_hand_behind_the_camera_is_refused(tmp_path: Path) -> None:
    keypoints = [(hand.keypoints * [1, -1, -1]).tolist() for hand in HANDS]
    write_json(write_freihand(tmp_path) / 'evaluation_xyz.json', keypoints)
    with pytest.raises(FileFormatError, match='before the camera'):
        read_freihand(tmp_path)
