"""What masks of real hands suffer: ragged borders, lost parts, a wrist cut in the wrong place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hand_mesh_ros.datasets.scenery import boundary_loop, tube_faces
from hand_mesh_ros.hand_model.model import HandModel, PosedHand

#: Rings of the piece of forearm that a mask may show.
_ARM_RINGS = 3
_ARM_WIDENING_PER_M = 1.6


@dataclass(frozen=True)
class BorderNoise:
    """How bad masks may be. Lengths are shares of the side of the picture, which a hand about half fills."""

    ragged: float = 0.012  #: largest root mean square shift of the border
    grown: float = 0.010  #: largest shift of the whole border, outwards or inwards
    arm_m: float = 0.04  #: longest piece of forearm that is taken for hand, metres
    cut_m: float = 0.015  #: widest piece of hand at the wrist that is taken for forearm, metres
    arm_share: float = 0.6  #: of the masks that are cut in the wrong place
    lost_share: float = 0.25  #: of the masks that lose pieces
    lost: float = 0.06  #: largest radius of such a piece
    edge_share: float = 0.08  #: of the masks that the edge of the picture, or a thing, cuts off
    edge: float = 0.25  #: the most that is cut off there, of the side


class WristCut:
    """Meshes of hands that end before or behind the wrist."""

    def __init__(self, model: HandModel) -> None:
        self._model = model
        self._loop = boundary_loop(model.faces)
        grown = len(model.v_template) + np.arange(_ARM_RINGS * len(self._loop)).reshape(_ARM_RINGS, -1)
        self._with_arm = np.concatenate([model.faces, tube_faces([self._loop, *grown])]).astype(np.int32)
        rest = model.rest(np.zeros(10))
        #: Metres of each face's nearest corner before the end of the mesh, along the hand
        backward = -self._axis(rest.keypoints)
        ahead = (rest.vertices @ backward).max() - rest.vertices @ backward
        self._ahead = ahead[model.faces].min(axis=1)

    def __call__(self, hand: PosedHand, length_m: float) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) and faces (F,3) of ``hand`` with so much forearm; below 0, so much less hand."""
        if length_m <= 0:
            return hand.vertices, self._model.faces[self._ahead >= -length_m]
        loop = hand.vertices[self._loop]
        centre, backward = loop.mean(0), -hand.T_camera_hand[:3, 0]
        along = length_m * np.linspace(1 / _ARM_RINGS, 1.0, _ARM_RINGS)[:, None, None]
        rings = centre + along * backward + (1 + _ARM_WIDENING_PER_M * along) * (loop - centre)
        return np.concatenate([hand.vertices, rings.reshape(-1, 3)]), self._with_arm

    @staticmethod
    def _axis(keypoints: np.ndarray) -> np.ndarray:
        """Unit vector from the wrist to the middle finger's root."""
        forward = keypoints[9] - keypoints[0]
        return forward / np.linalg.norm(forward)


def worn(mask: np.ndarray, noise: BorderNoise, rng: np.random.Generator) -> np.ndarray:
    """A mask (S,S) uint8 0/255 as a depth camera might have it: its border moved, pieces lost."""
    size = len(mask)
    # The mask blurred falls linearly across its border: where it is cut, there the border goes.
    sigma = max(noise.ragged, noise.grown) * size
    soft = cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.5)).astype(np.float32) / 255.0
    slope = 0.4 / max(sigma, 0.5)  # of a blurred edge in its middle, per pixel
    cells = int(rng.integers(8, 40))
    field = cv2.resize(
        rng.standard_normal((cells, cells), np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    ragged = noise.ragged * size * rng.random() * field
    moved = noise.grown * size * (2.0 * rng.random() - 1.0)
    result = (soft > np.clip(0.5 - slope * (moved + ragged), 0.06, 0.94)).astype(np.uint8) * 255
    if rng.random() < noise.lost_share:
        _lose_pieces(result, noise.lost * size, rng)
    if rng.random() < noise.edge_share:
        _cut_off(result, mask, noise.edge, rng)
    return result


def _lose_pieces(mask: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(rows)))
        axes = (max(1, int(radius * rng.random())), max(1, int(radius * rng.random())))
        centre = (int(columns[at]), int(rows[at]))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0.0, 360.0, (0.0,), thickness=-1)


def _cut_off(mask: np.ndarray, whole: np.ndarray, most: float, rng: np.random.Generator) -> None:
    """Remove what lies beyond a straight line that cuts off up to a share of the mask's reach."""
    rows, columns = np.nonzero(whole)
    if not len(rows):
        return
    angle = rng.uniform(0, 2 * np.pi)
    size = len(mask)
    down, right = np.mgrid[:size, :size]
    along = np.cos(angle) * right + np.sin(angle) * down
    reach = along[rows, columns]
    mask[along > reach.max() - most * rng.random() * (reach.max() - reach.min())] = 0
