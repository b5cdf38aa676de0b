"""DexYCB (Y.-W. Chao et al., CVPR 2021), in the folder that its tools call ``DEX_YCB_DIR``.

Read are ``SUBJECT/SEQUENCE/meta.yml`` (``serials``, ``mano_sides``), in the folder of each camera there
``labels_000000.npz`` and on (``joint_3d`` and ``joint_2d``) with ``color_000000.jpg``, and
``calibration/intrinsics/SERIAL_640x480.yml``. Joints are in metres in the camera optical frame, in
the 21-keypoint order. One hand is annotated in each image; images whose joints are all -1 show none
and are left out, as DexYCB's own evaluation does.

Vertices are not in the files: they would be the MANO model's for ``pose_m`` and the subject's betas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.datasets.published_files import checked_numbers, file_names, pinhole
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand import Side

SPLITS = ('all', 's0_test')

_SUBJECT = re.compile(r'\d{8}-.+')

#: The s0 test split: every fifth sequence of each subject, from its fifth on, but of two subjects that
#: are for validation. Places are those among a subject's hundred sequences, in the order of their names.
_SEQUENCES_OF_SUBJECT = 100
_TEST_SEQUENCES = slice(4, None, 5)
_VALIDATION_SUBJECTS = ('20200709-subject-01', '20200813-subject-02')

_REMEDY = 'unpack the archives of DexYCB again'


def read_dexycb(folder: Path, split: str = 'all') -> list[AnnotatedHand]:
    """Every annotated hand of a split of the DexYCB data set in ``folder``: see :func:`iterate_dexycb`.

    The whole data set has half a million hands, and a file for each; that takes minutes.
    """
    return list(iterate_dexycb(folder, split))


def iterate_dexycb(folder: Path, split: str = 'all') -> Iterator[AnnotatedHand]:
    """Hand by hand of a split, by subject, sequence, camera and frame; a file is read when its turn comes.

    :param split: ``all`` subjects and sequences that are there, or ``s0_test``, the published test split
        of seen subjects, which needs all sequences of the subjects that are there.
    :raises FileFormatError: a file that is missing or of another form.
    :raises ConfigurationError: another split.
    """
    if split not in SPLITS:
        raise ConfigurationError(f'DexYCB is not read by a split {split!r}; choose of {", ".join(SPLITS)}')
    cameras: dict[str, tuple[float, float, float, float]] = {}
    for sequence in _sequences(folder, split):
        serials, side = _meta(sequence / 'meta.yml')
        for serial in serials:
            if serial not in cameras:
                cameras[serial] = _intrinsics(folder / 'calibration' / 'intrinsics' / f'{serial}_640x480.yml')
            yield from _hands(sequence / serial, side, cameras[serial])


def subject_folders(folder: Path) -> list[Path]:
    """The folders of subjects in ``folder``, by name: ``20200709-subject-01`` and so on."""
    return sorted(path for path in folder.iterdir() if _SUBJECT.fullmatch(path.name) and path.is_dir())


def _sequences(folder: Path, split: str) -> Iterator[Path]:
    file_names(folder, _REMEDY)
    subjects = subject_folders(folder)
    if not subjects:
        raise FileFormatError(f'{folder}: no folder of a subject, such as 20200709-subject-01; {_REMEDY}')
    for subject in subjects:
        if split == 's0_test' and subject.name in _VALIDATION_SUBJECTS:
            continue
        sequences = sorted(path for path in subject.iterdir() if path.is_dir())
        if split == 's0_test':
            if len(sequences) != _SEQUENCES_OF_SUBJECT:
                raise FileFormatError(
                    f'{subject}: {len(sequences)} sequences, and which are of the s0 test split is known '
                    f'only where all {_SEQUENCES_OF_SUBJECT} are there; {_REMEDY}, or read the split "all"'
                )
            sequences = sequences[_TEST_SEQUENCES]
        yield from sequences


def _hands(
    folder: Path, side: Side, intrinsics: tuple[float, float, float, float]
) -> Iterator[AnnotatedHand]:
    """The annotated hands of one camera in one sequence."""
    names = file_names(folder, _REMEDY)
    labels = sorted(name for name in names if name.startswith('labels_') and name.endswith('.npz'))
    if not labels:
        raise FileFormatError(f'{folder}: no labels_000000.npz and so on; {_REMEDY}')
    for label in labels:
        frame = label.removeprefix('labels_').removesuffix('.npz')
        image = folder / f'color_{frame}.jpg'
        if image.name not in names:
            raise FileFormatError(f'{image}: missing; {_REMEDY}')
        keypoints, pixels = _joints(folder / label)
        if (keypoints == -1.0).all():
            continue
        yield AnnotatedHand(
            id='_'.join(('dexycb', *folder.parts[-3:], frame)),
            dataset='dexycb',
            image=image,
            side=side,
            intrinsics=intrinsics,
            keypoints_3d=keypoints,
            keypoints_2d=pixels,
            visible=np.ones(21, bool),
        )


def _joints(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (21,3) in metres and (21,2) in pixels of one frame."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            joints_3d = checked_numbers(arrays['joint_3d'], (1, 21, 3))
            joints_2d = checked_numbers(arrays['joint_2d'], (1, 21, 2))
        return joints_3d[0], joints_2d[0]
    # A damaged archive makes zipfile, zlib and numpy raise nearly anything.
    except Exception as error:
        raise FileFormatError(f'{path}: not the labels of a frame ({error}); {_REMEDY}') from error


def _meta(path: Path) -> tuple[list[str], Side]:
    """Serial numbers of the cameras, and the side of the hand, of one sequence."""
    document = _yaml(path)
    try:
        serials = [str(serial) for serial in document['serials']]
        (side,) = document['mano_sides']
        if side not in ('left', 'right') or not all(serial.isalnum() for serial in serials):
            raise ValueError(f'side {side!r} and cameras {serials}')
        return serials, side
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f'{path}: not of a sequence of DexYCB ({error!r}); {_REMEDY}') from error


def _intrinsics(path: Path) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of the colour camera."""
    document = _yaml(path)
    try:
        color = document['color']
        return pinhole([[color['fx'], 0.0, color['ppx']], [0.0, color['fy'], color['ppy']], [0.0, 0.0, 1.0]])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f'{path}: not the intrinsics of a camera ({error!r}); {_REMEDY}') from error


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise FileFormatError(f'{path}: cannot be read as YAML ({error}); {_REMEDY}') from error
