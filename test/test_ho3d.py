"""HO-3D in its published layout, and that nothing in its pickles is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from published_hand import HANDS, WIDE, Malice, check, write_json, write_picture

from hand_mesh_ros.datasets.ho3d import read_ho3d
from hand_mesh_ros.datasets.opening import open_dataset
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand_model.keypoints import FINGERS, KEYPOINT_NAMES
from hand_mesh_ros.hand_model.model import PosedHand

#: HO-3D's joints by name: MANO's order, then the tips.
HO3D_NAMES = [
    'wrist',
    *(
        f'{finger}_{part}'
        for finger in ('index', 'middle', 'pinky', 'ring')
        for part in ('mcp', 'pip', 'dip')
    ),
    *('thumb_cmc', 'thumb_mcp', 'thumb_ip'),
    *(f'{finger}_tip' for finger in FINGERS),
]

BOX = [150, 100, 500, 420]


def in_ho3d(hand: PosedHand) -> np.ndarray:
    """The hand's joints in HO-3D's order and axes."""
    by_name = dict(zip(KEYPOINT_NAMES, hand.keypoints, strict=True))
    return np.array([by_name[name] for name in HO3D_NAMES]) * [1.0, -1.0, -1.0]


def write_ho3d(folder: Path, split: str = 'evaluation', suffix: str = 'jpg', protocol: int = 2) -> Path:
    frames = ['SM1/0003', 'MPM10/0000']
    (folder / f'{split}.txt').write_text('\n'.join(frames) + '\n', encoding='utf-8')
    for frame, hand in zip(frames, HANDS, strict=True):
        joints = in_ho3d(hand)
        annotation = {
            'camMat': WIDE.K,
            'objName': '010_potted_meat_can',
            'objTrans': np.zeros(3),
            'handJoints3D': joints[0],
            'handBoundingBox': BOX,
        }
        if split == 'train':
            del annotation['handBoundingBox']
            annotation |= {'handJoints3D': joints, 'handPose': np.zeros(48), 'handBeta': np.zeros(10)}
            annotation |= {
                'handTrans': np.zeros(3),
                'camIDList': ['0', '1'],
                'handVertContact': np.zeros(778, bool),
            }
        sequence, number = frame.split('/')
        meta = folder / split / sequence / 'meta' / f'{number}.pkl'
        meta.parent.mkdir(parents=True)
        meta.write_bytes(pickle.dumps(annotation, protocol))
        write_picture(folder / split / sequence / 'rgb' / f'{number}.{suffix}', hand.keypoints, WIDE)
    if split == 'evaluation':
        write_json(folder / 'evaluation_xyz.json', [in_ho3d(hand).tolist() for hand in HANDS])
        vertices = [(hand.vertices * [1.0, -1.0, -1.0]).tolist() for hand in HANDS]
        write_json(folder / 'evaluation_verts.json', vertices)
    return folder


@pytest.mark.parametrize(('suffix', 'protocol'), [('jpg', 2), ('png', 4)])
def test_ho3d_evaluation(tmp_path: Path, suffix: str, protocol: int) -> None:
    hands = open_dataset(write_ho3d(tmp_path, suffix=suffix, protocol=protocol))
    assert [hand.id for hand in hands] == ['ho3d_SM1_0003', 'ho3d_MPM10_0000']
    for hand, truth in zip(hands, HANDS, strict=True):
        assert (hand.dataset, hand.side) == ('ho3d', 'right')
        assert hand.bbox_px is not None and hand.bbox_px.tolist() == BOX
        check(hand, truth, WIDE)


def test_ho3d_boxes_may_be_of_numpys_numbers(tmp_path: Path) -> None:
    annotation = {'camMat': WIDE.K, 'objLabel': np.int64(9), 'handBoundingBox': [np.int64(x) for x in BOX]}
    path = write_ho3d(tmp_path) / 'evaluation/SM1/meta/0003.pkl'
    path.write_bytes(pickle.dumps(annotation, 2))
    box = read_ho3d(tmp_path)[0].bbox_px
    assert box is not None and box.tolist() == BOX


def test_ho3d_train_has_joints_and_no_vertices(tmp_path: Path) -> None:
    hands = open_dataset(write_ho3d(tmp_path, 'train'), 'train')
    for hand, truth in zip(hands, HANDS, strict=True):
        assert hand.bbox_px is None
        check(hand, truth, WIDE, vertices=False)


def test_ho3d_frames_without_joints_are_left_out_of_train(tmp_path: Path) -> None:
    nothing = {'camMat': WIDE.K, 'handJoints3D': None, 'handPose': None}
    (write_ho3d(tmp_path, 'train') / 'train/SM1/meta/0003.pkl').write_bytes(pickle.dumps(nothing, 2))
    assert [hand.id for hand in read_ho3d(tmp_path, 'train')] == ['ho3d_MPM10_0000']


@pytest.mark.parametrize('place', ['in a field', 'in an unread field', 'alone'])
def test_ho3d_pickles_execute_nothing(tmp_path: Path, place: str) -> None:
    victim = tmp_path / 'victim'
    fields = {'camMat': WIDE.K, 'handBoundingBox': BOX}
    hostile = {
        'in a field': {**fields, 'camMat': Malice(victim)},
        'in an unread field': {**fields, 'objName': Malice(victim)},
        'alone': Malice(victim),
    }
    path = write_ho3d(tmp_path) / 'evaluation/SM1/meta/0003.pkl'
    path.write_bytes(pickle.dumps(hostile[place], 2))
    with pytest.raises(FileFormatError, match=r'0003\.pkl.*annotation of HO-3D.*mkdir.*nothing was executed'):
        read_ho3d(tmp_path)
    assert not victim.exists()


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'no pickle',
        pickle.dumps({'camMat': WIDE.K}, 0),
        pickle.dumps([1], 2),
        pickle.dumps({}, 2),
        pickle.dumps({'camMat': np.eye(4)}, 2),
        pickle.dumps({'camMat': None}, 2),
        pickle.dumps({'camMat': -WIDE.K}, 2),
        pickle.dumps({'camMat': WIDE.K, 'handBoundingBox': [1, 2]}, 2),
        bytes(5_000_000),
    ],
)
def test_ho3d_annotations_of_another_form_are_refused(tmp_path: Path, content: bytes) -> None:
    (write_ho3d(tmp_path) / 'evaluation/SM1/meta/0003.pkl').write_bytes(content)
    with pytest.raises(FileFormatError, match=r'0003\.pkl.*unpack HO-3D again'):
        read_ho3d(tmp_path)


@pytest.mark.parametrize(
    ('name', 'remedy'),
    [
        ('evaluation_xyz.json', 'ground truth'),
        ('evaluation_verts.json', 'ground truth'),
        ('evaluation/SM1/meta/0003.pkl', 'unpack'),
        ('evaluation/MPM10/rgb/0000.jpg', 'unpack'),
    ],
)
def test_ho3d_files_that_are_missing_are_named(tmp_path: Path, name: str, remedy: str) -> None:
    (write_ho3d(tmp_path) / name).unlink()
    with pytest.raises(FileFormatError, match=rf'{name}.*{remedy}'):
        read_ho3d(tmp_path)


def test_ho3d_lists_of_frames_lead_nowhere_else(tmp_path: Path) -> None:
    (write_ho3d(tmp_path) / 'evaluation.txt').write_text('SM1/0003\n../0000\n', encoding='utf-8')
    with pytest.raises(FileFormatError, match=r'evaluation\.txt.*SEQUENCE/FRAME'):
        read_ho3d(tmp_path)


def test_ho3d_ground_truth_of_another_version_is_refused(tmp_path: Path) -> None:
    (write_ho3d(tmp_path) / 'evaluation.txt').write_text('SM1/0003\n', encoding='utf-8')
    with pytest.raises(FileFormatError, match='1, 2 and 2 frames'):
        read_ho3d(tmp_path)
