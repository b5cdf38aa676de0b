"""FreiHAND version 2 (C. Zimmermann et al., ICCV 2019), as its two archives unpack into one folder.

Read are, for a split, ``SPLIT_K.json`` (3x3 each), ``SPLIT_xyz.json`` (21x3), ``SPLIT_verts.json`` (778x3)
and the images ``SPLIT/rgb/00000000.jpg`` and on; where it is there, ``training/mask/00000000.jpg`` and on, a
mask of the hand in each image of the first background. Everything there is in metres in the camera optical
frame and in the 21-keypoint order already; the vertices are MANO's. Fingertips are the vertices 744,
320, 443, 555, 672. All hands are right hands. ``SPLIT_scale.json``, a bone's length that is given to
methods as a hint, is not read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.datasets.published_files import file_names, pinhole, projected, read_json_arrays
from hand_mesh_ros.errors import ConfigurationError, FileFormatError

#: How often each split shows a sample: the training images stand before four backgrounds, one after the
#: other, under the same annotations.
SPLIT_BACKGROUNDS = {'evaluation': 1, 'training': 4}

_ARCHIVES = {'evaluation': 'FreiHAND_pub_v2_eval.zip', 'training': 'FreiHAND_pub_v2.zip'}


def read_freihand(folder: Path, split: str = 'evaluation') -> list[AnnotatedHand]:
    """Every hand of a split of the FreiHAND data set in ``folder``, in its published order.

    :param split: ``evaluation`` or ``training``. The backgrounds of a training sample share its arrays.
    :raises FileFormatError: a file that is missing or of another form.
    :raises ConfigurationError: another split.
    """
    if split not in SPLIT_BACKGROUNDS:
        raise ConfigurationError(f'FreiHAND has no split {split!r}; choose of {", ".join(SPLIT_BACKGROUNDS)}')
    remedy = f'unpack {_ARCHIVES[split]} of FreiHAND into {folder} again'
    cameras, keypoints, vertices = (
        read_json_arrays(folder / f'{split}_{what}.json', shape, remedy)
        for what, shape in (('K', (3, 3)), ('xyz', (21, 3)), ('verts', (778, 3)))
    )
    if not len(cameras) == len(keypoints) == len(vertices):
        raise FileFormatError(
            f'{folder}: {split}_K.json, {split}_xyz.json and {split}_verts.json have {len(cameras)}, '
            f'{len(keypoints)} and {len(vertices)} samples; {remedy}'
        )
    image_folder = folder / split / 'rgb'
    there = file_names(image_folder, remedy)
    mask_folder = folder / split / 'mask'
    masks = file_names(mask_folder, remedy) if mask_folder.is_dir() else set()
    hands = []
    for number in range(SPLIT_BACKGROUNDS[split] * len(cameras)):
        name = f'{number:08d}.jpg'
        if name not in there:
            raise FileFormatError(f'{image_folder / name}: missing; {remedy}')
        sample = number % len(cameras)
        mask = mask_folder / name if sample == number and name in masks else None
        try:
            hand = _hand(
                split, number, image_folder / name, cameras[sample], keypoints[sample], vertices[sample]
            )
        except ValueError as error:
            raise FileFormatError(f'{folder}: {split} sample {sample} has {error}; {remedy}') from error
        hands.append(replace(hand, mask=mask))
    return hands


def _hand(
    split: str, number: int, image: Path, K: np.ndarray, keypoints: np.ndarray, vertices: np.ndarray
) -> AnnotatedHand:
    intrinsics = pinhole(K)
    return AnnotatedHand(
        id=f'freihand_{split}_{number:08d}',
        dataset='freihand',
        image=image,
        side='right',
        intrinsics=intrinsics,
        keypoints_3d=keypoints,
        keypoints_2d=projected(keypoints, intrinsics),
        visible=np.ones(21, bool),
        vertices=vertices,
    )
