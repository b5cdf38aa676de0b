"""DexYCB in its published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from published_hand import WIDE, Malice, check, hand_at, pixels, write_picture

from hand_mesh_ros.datasets.dexycb import iterate_dexycb, read_dexycb
from hand_mesh_ros.datasets.opening import open_dataset
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand import Side

SERIALS = ['836212060125', '932122062010']


def write_dexycb(
    folder: Path, sequence: str = '20200709-subject-01/20200709_141754', side: Side = 'right'
) -> Path:
    truth = [hand_at(-0.02, 0.65, side), None, hand_at(0.01, 0.75, side)]
    for serial in SERIALS:
        intrinsics = folder / 'calibration' / 'intrinsics' / f'{serial}_640x480.yml'
        intrinsics.parent.mkdir(parents=True, exist_ok=True)
        color = {'fx': WIDE.fx, 'fy': WIDE.fy, 'ppx': WIDE.cx, 'ppy': WIDE.cy}
        intrinsics.write_text(yaml.safe_dump({'color': color, 'depth': {}}), encoding='utf-8')
        camera_folder = folder / sequence / serial
        for frame, hand in enumerate(truth):
            keypoints = None if hand is None else hand.keypoints
            write_picture(camera_folder / f'color_{frame:06d}.jpg', keypoints, WIDE)
            joints_2d = None if keypoints is None else pixels(keypoints, WIDE)[None]
            np.savez_compressed(
                camera_folder / f'labels_{frame:06d}.npz',
                seg=np.zeros((480, 640), np.uint8),
                pose_y=np.zeros((4, 3, 4), np.float32),
                pose_m=np.zeros((1, 51), np.float32),
                joint_3d=np.float32(np.full((1, 21, 3), -1) if keypoints is None else keypoints[None]),
                joint_2d=np.float32(np.full((1, 21, 2), -1) if joints_2d is None else joints_2d),
            )
    meta = {'serials': SERIALS, 'num_frames': 3, 'mano_sides': [side], 'ycb_ids': [1], 'ycb_grasp_ind': 0}
    (folder / sequence / 'meta.yml').write_text(yaml.safe_dump(meta), encoding='utf-8')
    return folder


@pytest.mark.parametrize('side', ['right', 'left'])
def test_dexycb(tmp_path: Path, side: Side) -> None:
    hands = open_dataset(write_dexycb(tmp_path, side=side))
    sequence = 'dexycb_20200709-subject-01_20200709_141754'
    assert [hand.id for hand in hands] == [
        f'{sequence}_{serial}_{frame}' for serial in SERIALS for frame in ('000000', '000002')
    ]  # frame 1 shows no hand
    for hand, truth in zip(hands, [hand_at(-0.02, 0.65, side), hand_at(0.01, 0.75, side)] * 2, strict=True):
        assert (hand.dataset, hand.side, hand.bbox_px) == ('dexycb', side, None)
        check(hand, truth, WIDE, vertices=False)


def test_dexycb_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    write_dexycb(tmp_path)
    (tmp_path / '20200709-subject-01/20200709_141754' / SERIALS[1] / 'labels_000002.npz').write_bytes(b'')
    hands = iterate_dexycb(tmp_path)
    assert next(hands).image.name == 'color_000000.jpg'
    with pytest.raises(FileFormatError, match=r'labels_000002\.npz'):
        list(hands)


def test_dexycb_s0_test_is_every_fifth_sequence_of_eight_subjects(tmp_path: Path) -> None:
    write_dexycb(tmp_path)  # a subject of validation
    for number in range(100):
        sequence = tmp_path / '20200820-subject-03' / f'20200820_{number:06d}'
        if number == 4 or number == 99:
            write_dexycb(tmp_path, f'{sequence.parent.name}/{sequence.name}')
        else:
            sequence.mkdir(parents=True)
            if number % 5 == 4:
                (sequence / 'meta.yml').write_text('{serials: [], mano_sides: [left]}', encoding='utf-8')
    hands = open_dataset(tmp_path, 's0_test')
    assert {hand.image.parts[-3] for hand in hands} == {'20200820_000004', '20200820_000099'}
    sequence.rename(tmp_path / 'elsewhere')
    with pytest.raises(FileFormatError, match=r'99 sequences.*"all"'):
        read_dexycb(tmp_path, 's0_test')


PLACE = '20200709-subject-01/20200709_141754'


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        (f'{PLACE}/meta.yml', b'serials: ['),
        (f'{PLACE}/meta.yml', b'- 1'),
        (f'{PLACE}/meta.yml', b'{serials: [..], mano_sides: [right]}'),
        (f'{PLACE}/meta.yml', b'{serials: [], mano_sides: [both]}'),
        (f'{PLACE}/meta.yml', b'!!python/object/apply:os.mkdir [victim]'),
        (f'{PLACE}/meta.yml', None),
        (f'calibration/intrinsics/{SERIALS[0]}_640x480.yml', b'{color: {fx: 1.0}}'),
        (
            f'calibration/intrinsics/{SERIALS[0]}_640x480.yml',
            b'{color: {fx: -1.0, fy: 1.0, ppx: 0.0, ppy: 0.0}}',
        ),
        (f'calibration/intrinsics/{SERIALS[0]}_640x480.yml', None),
        (f'{PLACE}/{SERIALS[0]}/labels_000000.npz', b'no archive'),
        (f'{PLACE}/{SERIALS[0]}/color_000002.jpg', None),
    ],
)
def test_dexycb_files_of_another_form_are_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = write_dexycb(tmp_path) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf'(?s){name}.*unpack'):
        read_dexycb(tmp_path)


def test_dexycb_labels_with_pickled_arrays_are_refused(tmp_path: Path) -> None:
    victim = tmp_path / 'victim'
    path = write_dexycb(tmp_path) / PLACE / SERIALS[0] / 'labels_000000.npz'
    np.savez(path, joint_3d=np.array([Malice(victim)], object), joint_2d=np.zeros((1, 21, 2)))
    with pytest.raises(FileFormatError, match=r'labels_000000\.npz'):
        read_dexycb(tmp_path)
    assert not victim.exists()
