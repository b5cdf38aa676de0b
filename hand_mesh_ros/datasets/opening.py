"""Opens a folder or file of annotated images, whichever of the known formats it is in."""

from __future__ import annotations

from pathlib import Path

from hand_mesh_ros.datasets.annotated import AnnotatedHand, read_index
from hand_mesh_ros.datasets.dexycb import read_dexycb, subject_folders
from hand_mesh_ros.datasets.freihand import read_freihand
from hand_mesh_ros.datasets.ho3d import read_ho3d
from hand_mesh_ros.errors import ConfigurationError, FileFormatError

#: Each data set by the files that its folder is known by, for the message where there are none.
_LOOKED_FOR = (
    'index.json; evaluation_K.json or training_K.json (FreiHAND); evaluation.txt or train.txt (HO-3D); '
    'calibration/intrinsics and 20200709-subject-01 and so on (DexYCB)'
)


def open_dataset(path: Path, split: str | None = None) -> list[AnnotatedHand]:
    """The annotated hands in ``path``: an ``index.json``, its folder, or the folder of FreiHAND version 2,
    HO-3D version 3 or DexYCB as they are published. Which one it is is told by the files in it.

    :param split: ``evaluation`` (default) or ``training`` of FreiHAND; ``evaluation`` (default) or ``train``
        of HO-3D; ``all`` (default) or ``s0_test`` of DexYCB. An index has no splits.
    :raises FileFormatError: a path that is none of these, or a file in it that is missing or of another form.
    :raises ConfigurationError: a split that the data set does not have.
    """
    if not path.exists():
        raise FileFormatError(
            f'{path}: no such file or folder; give an index.json or the folder of a data set'
        )
    index = path if path.is_file() else path / 'index.json'
    if index.is_file():
        if split is not None:
            raise ConfigurationError(f'{index}: an index has no splits, and {split!r} was asked for')
        return read_index(index)
    if _has(path, 'evaluation_K.json', 'training_K.json'):
        return read_freihand(path, split or 'evaluation')
    if _has(path, 'evaluation.txt', 'train.txt'):
        return read_ho3d(path, split or 'evaluation')
    if (path / 'calibration' / 'intrinsics').is_dir() and subject_folders(path):
        return read_dexycb(path, split or 'all')
    raise FileFormatError(f'{path}: no data set that is known; give the folder that holds {_LOOKED_FOR}')


def _has(folder: Path, *names: str) -> bool:
    return any((folder / name).is_file() for name in names)
