"""From the named arrays of a file in MANO's schema to a checked HandModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.keypoints import JOINT_NAMES, JOINT_PARENTS, KEYPOINT_JOINTS, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.mirroring import mirrored_pose_limits
from hand_mesh_ros.hand_model.model import HandModel

#: What every file must hold.
REQUIRED_FIELDS = (
    'v_template',
    'f',
    'shapedirs',
    'posedirs',
    'J_regressor',
    'weights',
    'kintree_table',
    'hands_mean',
    'hands_components',
)

#: What a file may hold; MANO's own do not.
OPTIONAL_FIELDS = ('name', 'license', 'tip_vertices', 'keypoint_regressor', 'keypoint_joints', 'pose_limits')

#: Tips on MANO's mesh, thumb to pinky, as the smplx package numbers them.
_MANO_TIP_VERTICES = (744, 320, 443, 554, 671)
_MANO_VERTICES = 778

#: 25 times as many as MANO has; what is made of a file grows with them.
_MAX_VERTICES = 20_000

_BETAS = 10
_USER_LICENSE = 'user-supplied (MANO licence applies)'
_REMEDY = 'give the original MANO_RIGHT.pkl or MANO_LEFT.pkl, or an .npz with the same arrays'

#: Metres from the wrist to the furthest vertex that a hand can have, the smallest and the largest.
_PLAUSIBLE_REACH_M = (0.1, 0.35)


def hand_model_from_fields(
    fields: Mapping[str, Any], path: Path, sha256: str, default_pose_limits: Callable[[], np.ndarray]
) -> HandModel:
    """The model in ``fields``, on the side that its geometry shows.

    ``default_pose_limits`` returns the limits (45,2) of a right hand, for files that have none.
    Raises FileFormatError, with ``path``, for whatever does not fit MANO's schema.
    """
    reader = _FieldReader(fields, path)
    _check_kinematic_tree(reader)
    v_template = reader.floats('v_template', (None, 3))
    vertices = len(v_template)
    if vertices > _MAX_VERTICES:
        raise reader.error(f'{vertices} vertices are too many for a hand; {_MAX_VERTICES} are the most')
    joint_regressor = reader.floats('J_regressor', (16, vertices))
    side = _side(v_template, joint_regressor, reader)
    tips = _tip_vertices(reader, vertices)
    keypoint_regressor, keypoint_joints = _keypoints(reader, joint_regressor, tips)
    shapedirs = reader.floats('shapedirs', (vertices, 3, None))
    if shapedirs.shape[2] < _BETAS:
        raise reader.error(f'shapedirs has {shapedirs.shape[2]} shape components, {_BETAS} are needed')
    return HandModel(
        name=reader.text('name', path.stem),
        license=reader.text('license', _USER_LICENSE),
        sha256=sha256,
        side=side,
        v_template=v_template,
        faces=reader.indices('f', (None, 3), below=vertices).astype(np.int32),
        shapedirs=np.ascontiguousarray(shapedirs[:, :, :_BETAS]),
        posedirs=reader.floats('posedirs', (vertices, 3, 135)),
        joint_regressor=joint_regressor,
        weights=_weights(reader, vertices),
        hands_mean=reader.floats('hands_mean', (45,)),
        hands_components=reader.floats('hands_components', (45, 45)),
        tip_vertices=tips,
        keypoint_regressor=keypoint_regressor,
        keypoint_joints=keypoint_joints,
        pose_limits=_pose_limits(reader, side, default_pose_limits),
    )


class _FieldReader:
    """Takes checked arrays out of a file's fields."""

    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        self._fields = fields
        self._path = path

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def error(self, what: str) -> FileFormatError:
        return FileFormatError(f'{self._path}: {what}; {_REMEDY}')

    def floats(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Float64 array of that shape, None standing for any length."""
        array = self._array(key, shape)
        if array.dtype.kind not in 'fiu':
            raise self.error(f'{key} holds {array.dtype}, not real numbers')
        array = np.ascontiguousarray(array, np.float64)
        if not np.isfinite(array).all():
            raise self.error(f'{key} holds numbers that are not finite')
        return array

    def integers(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Int64 array of that shape."""
        array = self._array(key, shape)
        if array.dtype.kind not in 'iu':
            raise self.error(f'{key} holds {array.dtype}, not integers')
        return array.astype(np.int64)

    def indices(self, key: str, shape: tuple[int | None, ...], below: int) -> np.ndarray:
        """Int64 array of that shape, every number from 0 to ``below`` - 1."""
        array = self.integers(key, shape)
        if array.min() < 0 or array.max() >= below:
            raise self.error(f'{key} holds a number outside of 0 to {below - 1}')
        return array

    def text(self, key: str, default: str) -> str:
        if key not in self._fields:
            return default
        value = self._fields[key]
        try:
            if isinstance(value, np.ndarray) and value.dtype.kind == 'U' and value.ndim == 0:
                value = value.item()
            if not isinstance(value, str):
                raise TypeError(f'it holds {type(value).__name__}')
            # A text that cannot be encoded could be neither printed nor sent.
            value.encode('utf-8')
        # SystemError: what Python says of a character code beyond all of Unicode.
        except (TypeError, ValueError, SystemError) as error:
            raise self.error(f'{key} is not a text') from error
        return value

    def _array(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        if key not in self._fields:
            raise self.error(f'{key} is missing')
        array = self._fields[key]
        if not isinstance(array, np.ndarray):
            raise self.error(f'{key} is not an array')
        fits = len(array.shape) == len(shape) and all(
            n > 0 if wanted is None else n == wanted for n, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits:
            expected = ', '.join('any' if n is None else str(n) for n in shape)
            raise self.error(f'{key} has shape {array.shape}, not ({expected})')
        return array


def _check_kinematic_tree(reader: _FieldReader) -> None:
    tree = reader.integers('kintree_table', (2, 16))
    # The root's parent is left out: files hold -1 as whatever their unsigned type makes of it.
    if tuple(tree[0, 1:]) != JOINT_PARENTS[1:] or tuple(tree[1]) != tuple(range(16)):
        raise reader.error("kintree_table is not the tree of MANO's 16 joints")


def _side(v_template: np.ndarray, joint_regressor: np.ndarray, reader: _FieldReader) -> Side:
    """The side that the geometry shows: MANO's right fingers point along -x, its left ones along +x."""
    joints = joint_regressor @ v_template
    fingers = joints[JOINT_NAMES.index('middle1')] - joints[JOINT_NAMES.index('wrist')]
    thumb = joints[JOINT_NAMES.index('thumb3')] - joints[JOINT_NAMES.index('pinky3')]
    if np.argmax(np.abs(fingers)) != 0 or thumb[2] <= abs(thumb[1]):
        raise reader.error(
            "the hand at rest does not lie along MANO's axes: fingers along x, thumb towards +z"
        )
    reach = np.linalg.norm(v_template - joints[0], axis=1).max()
    shortest, longest = _PLAUSIBLE_REACH_M
    if not shortest <= reach <= longest:
        raise reader.error(f'the hand reaches {reach:.3g} from its wrist, which is no length in metres')
    return 'right' if fingers[0] < 0 else 'left'


def _weights(reader: _FieldReader, vertices: int) -> np.ndarray:
    weights = reader.floats('weights', (vertices, 16))
    if weights.min() < -1e-6 or np.abs(weights.sum(axis=1) - 1).max() > 1e-3:
        raise reader.error('weights are not parts of a whole: every row must be positive and sum to 1')
    return weights


def _tip_vertices(reader: _FieldReader, vertices: int) -> np.ndarray:
    if 'tip_vertices' in reader:
        return reader.indices('tip_vertices', (5,), below=vertices)
    if vertices != _MANO_VERTICES:
        raise reader.error(f'tip_vertices is missing, and a mesh of {vertices} vertices is not that of MANO')
    return np.array(_MANO_TIP_VERTICES)


def _keypoints(
    reader: _FieldReader, joint_regressor: np.ndarray, tips: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoint regressor (21,V) and joints (21,): the file's, or else MANO's joints and the tips."""
    vertices = joint_regressor.shape[1]
    if 'keypoint_regressor' in reader:
        return (
            reader.floats('keypoint_regressor', (21, vertices)),
            reader.indices('keypoint_joints', (21,), below=16),
        )
    regressor = joint_regressor[list(KEYPOINT_JOINTS)]
    regressor[list(TIP_KEYPOINTS)] = 0.0
    regressor[list(TIP_KEYPOINTS), tips] = 1.0
    return regressor, np.array(KEYPOINT_JOINTS)


def _pose_limits(reader: _FieldReader, side: Side, default: Callable[[], np.ndarray]) -> np.ndarray:
    if 'pose_limits' not in reader:
        return default() if side == 'right' else mirrored_pose_limits(default())
    limits = reader.floats('pose_limits', (45, 2))
    if (limits[:, 0] > limits[:, 1]).any():
        raise reader.error('pose_limits has a lower limit above its upper one')
    return limits
