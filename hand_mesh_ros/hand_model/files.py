"""Hand models from files: the open model of this package, a user's .npz, or MANO's own .pkl.

Which side a file holds is told by its geometry, never by its name. MANO's left file was published
with the x of its shape displacements not mirrored (https://github.com/vchoutas/smplx/issues/48), so that
betas make another hand of it than of the right one. Nothing in the left file alone shows that: where
MANO_RIGHT.pkl or MANO_RIGHT.npz lies beside it, the two are compared and the left one is corrected.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.mirroring import mirrored_shapedirs
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.restricted_pickle import read_pickled_fields
from hand_mesh_ros.hand_model.schema import OPTIONAL_FIELDS, REQUIRED_FIELDS, hand_model_from_fields

OPEN_HAND_PATH = Path(__file__).parent / 'data' / 'open_hand_right.npz'

#: MANO's own files have 4 MB. More than this is no hand model and is not worth filling memory with.
_MAX_BYTES = 64 * 2**20

_RIGHT_FILES_BESIDE = ('MANO_RIGHT.pkl', 'MANO_RIGHT.npz')


def load_hand_model(path: Path | None = None, side: Side = 'right') -> HandModel:
    """The hand model in ``path`` (.npz or .pkl), or the open one of this package, for ``side``.

    A file of the other side is mirrored. Raises FileFormatError for a file that is missing, damaged,
    not in MANO's schema, or that holds more than plain numbers; nothing in a file is ever executed.
    """
    model = _load(OPEN_HAND_PATH if path is None else Path(path))
    return model if model.side == side else model.mirrored()


def _load(path: Path) -> HandModel:
    model = _load_as_stored(path)
    if model.side == 'right':
        return model
    for right_path in (path.with_name(name) for name in _RIGHT_FILES_BESIDE):
        if right_path.is_file():
            return _with_mirrored_shapes(model, _load_as_stored(right_path))
    return model


def _load_as_stored(path: Path) -> HandModel:
    content = _content(path)
    readers = {'.npz': _read_npz_fields, '.pkl': read_pickled_fields}
    if path.suffix not in readers:
        raise FileFormatError(f'{path}: a hand model is an .npz or a .pkl file')
    fields = readers[path.suffix](content, path, REQUIRED_FIELDS + OPTIONAL_FIELDS)
    return hand_model_from_fields(fields, path, hashlib.sha256(content).hexdigest(), _open_pose_limits)


def _content(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise FileFormatError(f'{path}: {error.strerror}; give the path of a readable hand model') from error
    if len(content) > _MAX_BYTES:
        raise FileFormatError(f'{path}: more than {_MAX_BYTES >> 20} MB, which is no hand model')
    return content


def _read_npz_fields(content: bytes, path: Path, keys: Collection[str]) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_BYTES:
            raise ValueError(f'it unpacks to more than {_MAX_BYTES >> 20} MB')
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys if key in arrays}
    # A damaged archive makes zipfile, zlib and numpy raise nearly anything.
    except Exception as error:
        raise FileFormatError(
            f'{path}: not a readable .npz of plain arrays ({error}); write it again with numpy.savez'
        ) from error


def _open_pose_limits() -> np.ndarray:
    return _load_as_stored(OPEN_HAND_PATH).pose_limits


def _with_mirrored_shapes(left: HandModel, right: HandModel) -> HandModel:
    """``left`` with its shape displacements mirrored if they are the unmirrored ones of ``right``."""
    if right.side != 'right' or left.shapedirs.shape != right.shapedirs.shape:
        return left
    left_x, right_x = left.shapedirs[:, 0], right.shapedirs[:, 0]
    published_unmirrored = np.linalg.norm(left_x - right_x) < np.linalg.norm(left_x + right_x)
    return replace(left, shapedirs=mirrored_shapedirs(left.shapedirs)) if published_unmirrored else left
