"""Right hands of sampled adults, from the anny body model on MakeHuman's own mesh and rig."""

from __future__ import annotations

from pathlib import Path

import anny
import numpy as np
import torch
from anny.paths import get_anny_root_dir
from anny.shape_distribution import SimpleShapeDistribution
from PIL import Image, ImageFilter

from hand_mesh_ros.hand_model.build.rig import JOINT_BONES, WRIST_BONES, HandSamples, fold_weights
from hand_mesh_ros.hand_model.keypoints import FINGERS

_AGE_YEARS = (18.0, 75.0)

#: Standard deviations of MakeHuman's local sliders (each in [-1, 1]) that change a hand.
_SLIDER_SPREAD = {
    'r-hand-fingers-length-incr': 0.12,
    'r-hand-fingers-diameter-incr': 0.35,
    'r-hand-scale-incr': 0.06,
    'measure-wrist-circ-incr': 0.35,
}

#: Everything of the arm this close to the wrist is sampled; the crop comes later.
_REACH_M = 0.25


def sample_hands(count: int, seed: int) -> HandSamples:
    """Hands of ``count`` adults, half men and half women, in the body frame of anny (metres, z up).

    The first run on a machine takes minutes: anny parses MakeHuman's files and caches the result.
    """
    # The topology must stay 'makehuman': the 'smplx' one would fetch data with a non-commercial licence.
    body = anny.Anny(
        rig='makehuman',
        topology='makehuman',
        local_changes='all',
        phenotypes='all',
        phenotype_blendshapes='original',
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        phenotypes, is_male = _sample_phenotypes(body, count)
        sliders = {
            name: (spread * torch.randn(count, dtype=body.dtype)).clamp(-1, 1)
            for name, spread in _SLIDER_SPREAD.items()
        }
    coefficients = body.get_phenotype_blendshape_coefficients(**phenotypes, local_changes=sliders)

    def blend(template: torch.Tensor, blendshapes: torch.Tensor, rows: np.ndarray | list[int]) -> np.ndarray:
        offsets = torch.einsum('nk,kvi->nvi', coefficients, blendshapes[:, rows])
        return np.asarray((template[rows] + offsets).numpy())

    labels = list(body.bone_labels)
    bone_weights = np.zeros((len(body.template_vertices), len(labels)))
    np.add.at(
        bone_weights,
        (np.arange(len(bone_weights))[:, None], body.vertex_bone_indices.numpy()),
        body.vertex_bone_weights.numpy(),
    )
    arm = [labels.index(label) for label in JOINT_BONES + WRIST_BONES]
    wrist = body.template_bone_heads[labels.index('wrist.R')].numpy()
    near = np.linalg.norm(body.template_vertices.numpy() - wrist, axis=1) < _REACH_M
    faces = body.faces.numpy()
    on_skin = np.isin(np.arange(len(near)), faces)
    rows = np.nonzero(on_skin & near & (bone_weights[:, arm].sum(1) > 0.98))[0]

    number = np.full(len(near), -1)
    number[rows] = np.arange(len(rows))
    heads = [labels.index(label) for label in JOINT_BONES]
    ends = [labels.index(f'finger{1 + finger}-3.R') for finger in range(len(FINGERS))]
    inside = np.isin(faces, rows).all(1)
    return HandSamples(
        vertices=blend(body.template_vertices, body.blendshapes, rows),
        joints=blend(body.template_bone_heads, body.bone_heads_blendshapes, heads),
        tips=blend(body.template_bone_tails, body.bone_tails_blendshapes, ends),
        weights=fold_weights(bone_weights[rows], labels),
        faces=number[faces[inside]],
        nail=_nail_mask(body, inside)[rows],
        is_male=is_male.numpy(),
    )


def _sample_phenotypes(body: anny.Anny, count: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Phenotypes (count,) by name, and who is a man.

    Distributions are those that anny calibrated on growth charts, but its continuous sex (0 man, 1 woman)
    gets two peaks instead of a plateau.
    """

    def constant(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=body.dtype)

    sex = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(constant(0.5, 0.5)),
        torch.distributions.Beta(constant(1.5, 8.0), constant(8.0, 1.5)),
    )
    age = torch.distributions.Uniform(*constant(*_AGE_YEARS))
    distribution = SimpleShapeDistribution(body, age, sex)
    _, phenotypes = distribution.sample(count)
    origins = torch.distributions.Dirichlet(constant(0.6, 0.6, 0.6)).sample((count,))
    phenotypes.update(african=origins[:, 0], asian=origins[:, 1], caucasian=origins[:, 2])
    return phenotypes, phenotypes['gender'] <= 0.5


def _nail_mask(body: anny.Anny, faces: np.ndarray) -> np.ndarray:
    """MakeHuman's fingernail picture at the vertices of the chosen ``faces``, a mask: (V,) in [0, 1]."""
    path = Path(get_anny_root_dir()) / 'data/mpfb2/textures/mpfb_fingernails.jpg'
    with Image.open(path) as image:
        picture = np.asarray(image.convert('L').filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float64) / 255
    corners = body.texture_coordinates.numpy()[body.face_texture_coordinate_indices.numpy()[faces]]
    column = np.clip(corners[..., 0] * picture.shape[1], 0, picture.shape[1] - 1).astype(int)
    row = np.clip((1 - corners[..., 1]) * picture.shape[0], 0, picture.shape[0] - 1).astype(int)
    mask = np.zeros(len(body.template_vertices))
    mask[body.faces.numpy()[faces]] = picture[row, column]
    return mask
