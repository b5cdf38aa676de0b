"""HO-3D version 3 (S. Hampali et al., CVPR 2020) and version 2, which is laid out alike.

A split is a list of frames, ``evaluation.txt`` or ``train.txt``, with ``SEQUENCE/FRAME`` on each line,
and for each frame an image ``SPLIT/SEQUENCE/rgb/FRAME.jpg`` (version 2: ``.png``) and a pickled
annotation ``SPLIT/SEQUENCE/meta/FRAME.pkl``. The ground truth of the evaluation split was published later,
as ``evaluation_xyz.json`` and ``evaluation_verts.json`` in the order of ``evaluation.txt``; both files
belong beside it. The training split gives joints but no vertices.

Coordinates are metres in OpenGL's camera axes (y up, z backward), joints are in MANO's order with the
tips of thumb, index, middle, ring and pinky after them. All hands are right hands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.datasets.published_files import (
    checked_numbers,
    file_names,
    pinhole,
    projected,
    read_json_arrays,
)
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_JOINTS, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.restricted_pickle import read_pickled_fields

SPLITS = ('evaluation', 'train')

#: What turns OpenGL's camera axes into those of the camera optical frame.
_AXIS_SIGNS = np.array([1.0, -1.0, -1.0])

#: Where each of the 21 keypoints is in HO-3D's joints: those of MANO, then the five tips.
_KEYPOINT_ORDER = np.array(KEYPOINT_JOINTS)
_KEYPOINT_ORDER[list(TIP_KEYPOINTS)] = range(16, 21)

_FRAME = re.compile(r'([\w-]+)/([\w-]+)')

#: An annotation has some 50 kB.
_MAX_ANNOTATION_BYTES = 2**22

_REMEDY = 'unpack HO-3D again'
_TRUTH_REMEDY = (
    'the ground truth of the evaluation split is an archive of its own: get it from the pages of HO-3D, in '
    'the version of the images, and put it beside evaluation.txt'
)


def read_ho3d(folder: Path, split: str = 'evaluation') -> list[AnnotatedHand]:
    """Every annotated hand of a split of the HO-3D data set in ``folder``, in its published order.

    Frames of ``train`` whose annotation holds no joints are left out. Pickles are read as data;
    nothing in them is executed.

    :param split: ``evaluation`` or ``train``.
    :raises FileFormatError: a file that is missing or of another form.
    :raises ConfigurationError: another split.
    """
    if split not in SPLITS:
        raise ConfigurationError(f'HO-3D has no split {split!r}; choose of {", ".join(SPLITS)}')
    frames = _frames(folder / f'{split}.txt')
    joints, vertices = _evaluation_truth(folder, len(frames)) if split == 'evaluation' else (None, None)
    images: dict[str, set[str]] = {}  # by the sequence
    hands = []
    for number, (sequence, frame) in enumerate(frames):
        sequence_folder = folder / split / sequence
        if sequence not in images:
            images[sequence] = file_names(sequence_folder / 'rgb', _REMEDY)
        image = _image(sequence_folder / 'rgb', frame, images[sequence])
        path = sequence_folder / 'meta' / f'{frame}.pkl'
        fields = _annotation(path)
        own_joints = fields.get('handJoints3D') if joints is None else joints[number]
        if own_joints is None:
            continue
        try:
            hand = _hand(
                f'ho3d_{sequence}_{frame}',
                image,
                fields,
                own_joints,
                None if vertices is None else vertices[number],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"{path}: not an annotation of HO-3D's {split} split ({error!r}); {_REMEDY}"
            ) from error
        hands.append(hand)
    return hands


def _hand(
    name: str, image: Path, fields: Mapping[str, Any], joints: Any, vertices: np.ndarray | None
) -> AnnotatedHand:
    intrinsics = pinhole(fields['camMat'])
    keypoints = checked_numbers(joints, (21, 3))[_KEYPOINT_ORDER] * _AXIS_SIGNS
    box = fields.get('handBoundingBox')
    return AnnotatedHand(
        id=name,
        dataset='ho3d',
        image=image,
        side='right',
        intrinsics=intrinsics,
        keypoints_3d=keypoints,
        keypoints_2d=projected(keypoints, intrinsics),
        visible=np.ones(21, bool),
        vertices=None if vertices is None else vertices * _AXIS_SIGNS,
        bbox_px=None if box is None else checked_numbers(box, (4,)),
    )


def _frames(path: Path) -> list[tuple[str, str]]:
    """Sequence and frame on each line of ``path``."""
    try:
        lines = path.read_text(encoding='utf-8').split()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f'{path}: cannot be read ({error}); {_REMEDY}') from error
    frames = []
    for line in lines:
        match = _FRAME.fullmatch(line)
        if match is None:
            raise FileFormatError(f'{path}: {line!r} where SEQUENCE/FRAME is expected; {_REMEDY}')
        frames.append((match[1], match[2]))
    return frames


def _evaluation_truth(folder: Path, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Joints (21,3) and vertices (778,3) of each of ``count`` frames, in HO-3D's axes and order."""
    joints = read_json_arrays(folder / 'evaluation_xyz.json', (21, 3), _TRUTH_REMEDY)
    vertices = read_json_arrays(folder / 'evaluation_verts.json', (778, 3), _TRUTH_REMEDY)
    if not len(joints) == len(vertices) == count:
        raise FileFormatError(
            f'{folder}: evaluation.txt, evaluation_xyz.json and evaluation_verts.json have {count}, '
            f'{len(joints)} and {len(vertices)} frames; {_TRUTH_REMEDY}'
        )
    return joints, vertices


def _image(folder: Path, frame: str, there: set[str]) -> Path:
    for name in (f'{frame}.jpg', f'{frame}.png'):
        if name in there:
            return folder / name
    raise FileFormatError(f'{folder / frame}.jpg: missing, and no .png either; {_REMEDY}')


def _annotation(path: Path) -> dict[str, Any]:
    """The fields of a frame's pickled annotation that are of use here."""
    try:
        with path.open('rb') as file:
            content = file.read(_MAX_ANNOTATION_BYTES + 1)
    except OSError as error:
        raise FileFormatError(f'{path}: cannot be read ({error.strerror}); {_REMEDY}') from error
    if len(content) > _MAX_ANNOTATION_BYTES:
        raise FileFormatError(f'{path}: too large for an annotation of HO-3D; {_REMEDY}')
    try:
        return read_pickled_fields(content, path, ('camMat', 'handJoints3D', 'handBoundingBox'))
    except FileFormatError as error:  # its remedy is a hand model's
        raise FileFormatError(
            f'{path}: not a readable annotation of HO-3D ({error.__cause__}); {_REMEDY}'
        ) from error
