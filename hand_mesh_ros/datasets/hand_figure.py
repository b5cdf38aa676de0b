"""A hand with forearm and sleeve as one mesh, in many skins, light enough to draw thousands of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.datasets.scenery import boundary_loop, smallest_turns, tube_faces
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import rotation_matrices
from hand_mesh_ros.rendering.shading import srgb_to_linear, vertex_normals
from hand_mesh_ros.rendering.skin import skin_albedo
from hand_mesh_ros.rendering.subdivision import Subdivision

_ARM_LENGTH_M = 0.26
_SKINS = 48

#: How much wider than the wrist the arm is at the elbow, and a sleeve than the arm.
_ARM_WIDENING = 0.45
#: Rings along the bare arm and along the sleeve, whose first one is the cuff's inner edge.
_BARE_RINGS, _SLEEVE_RINGS = 4, 6


@dataclass(frozen=True)
class Sleeve:
    """Where a sleeve begins, and how it looks."""

    begin: float  #: share of the way from wrist to elbow; 1 for a bare arm
    looseness: float  #: how much wider than the arm, e.g. 1.2
    colour: np.ndarray  #: (3,) linear RGB


@dataclass(frozen=True, eq=False)
class Figure:
    """A posed hand with its arm, ready to be lit and drawn."""

    vertices: np.ndarray  #: (V,3) metres
    normals: np.ndarray  #: (V,3) unit, outwards
    albedo: np.ndarray  #: (V,3) float32 linear RGB


class HandFigures:
    """Makes figures of one hand model."""

    def __init__(self, model: HandModel, seed: int) -> None:
        """Prepare the mesh of ``model`` and, chosen by ``seed``, skins from light to dark."""
        self.model = model
        self._loop = boundary_loop(model.faces)
        rings = _BARE_RINGS + _SLEEVE_RINGS
        grown = len(model.v_template) + np.arange(rings * len(self._loop)).reshape(rings, -1)
        #: (F,3) int32: before it is refined
        self.coarse_faces = np.concatenate([model.faces, tube_faces([self._loop, *grown])]).astype(np.int32)
        self._fine = Subdivision(self.coarse_faces, rounds=1)
        self.faces = self._fine.faces  #: (F,3) int32
        #: (F,): the joint with which each coarse face moves; the arm counts to the wrist
        self.coarse_parts = np.zeros(len(self.coarse_faces), np.int64)
        self.coarse_parts[: len(model.faces)] = model.weights[model.faces].sum(1).argmax(1)
        cloth = np.zeros((grown.max() + 1, 1))
        cloth[grown[_BARE_RINGS + 1, 0] :] = 1.0
        self._cloth = self._fine(cloth) > 0.5
        self._skins = self._make_skins(np.random.default_rng([seed, 1]))

    def coarse_vertices(self, hand: PosedHand, bend: np.ndarray, sleeve: Sleeve) -> np.ndarray:
        """Vertices (V,3) of ``coarse_faces``. ``bend`` (3,): the forearm's turn at the wrist, axis-angle."""
        loop = hand.vertices[self._loop]
        centre, backward = loop.mean(0), -hand.T_camera_hand[:3, 0]
        elbow = centre + _ARM_LENGTH_M * rotation_matrices(bend) @ backward
        # A quadratic Bézier curve that leaves the wrist straight and ends at the elbow.
        control = centre + backward * 0.2 * _ARM_LENGTH_M
        bare = np.linspace(0.1, 1.0, _BARE_RINGS) * sleeve.begin
        clothed = np.linspace(sleeve.begin, 1.0, _SLEEVE_RINGS - 1)
        along = np.concatenate([bare, [sleeve.begin], clothed])[:, None]
        width = 1.0 + _ARM_WIDENING * along
        width[_BARE_RINGS + 1 :] *= sleeve.looseness
        path = (1 - along) ** 2 * centre + 2 * along * (1 - along) * control + along**2 * elbow
        tangents = (1 - along) * (control - centre) + along * (elbow - control)
        turns = smallest_turns(backward, tangents / np.linalg.norm(tangents, axis=1, keepdims=True))
        rings = path[:, None] + width[:, :, None] * np.einsum('rab,nb->rna', turns, loop - centre)
        return np.concatenate([hand.vertices, rings.reshape(-1, 3)])

    def figure(self, coarse_vertices: np.ndarray, sleeve: Sleeve, skin: int) -> Figure:
        """The fine mesh of ``coarse_vertices`` in skin number ``skin`` (any number; they repeat)."""
        # Normals of the coarse mesh, averaged between its vertices, hide that its triangles are flat.
        normals = _unit(self._fine(vertex_normals(coarse_vertices, self.coarse_faces)))
        albedo = np.where(self._cloth, sleeve.colour.astype(np.float32), self._skins[skin % _SKINS])
        return Figure(self._fine(coarse_vertices), normals, albedo)

    def _make_skins(self, rng: np.random.Generator) -> np.ndarray:
        """Albedos (skins,V,3) float32."""
        betas = np.zeros(10)
        rest = self.model.posed(np.zeros(3), np.zeros(45), betas, np.zeros(3))
        coarse = self.coarse_vertices(rest, np.zeros(3), Sleeve(1.0, 1.0, np.zeros(3)))
        points = self._fine(coarse)
        normals = _unit(self._fine(vertex_normals(coarse, self.coarse_faces)))
        tones = (np.arange(_SKINS) + rng.random(_SKINS)) / _SKINS
        return np.stack(
            [
                skin_albedo(self.model.rest(betas), self.model.side, points, normals, tone, seed)
                for seed, tone in enumerate(tones)
            ]
        )


def random_sleeve(rng: np.random.Generator) -> Sleeve:
    """A bare arm, or a sleeve of any length and colour."""
    colour = srgb_to_linear(rng.uniform(0.03, 0.95, 3) * rng.uniform(0.3, 1.0))
    begin = 1.0 if rng.random() < 0.4 else float(rng.uniform(0.12, 0.8))
    return Sleeve(begin, float(rng.uniform(1.08, 1.5)), colour)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum('vk,vk->v', vectors, vectors))
    return vectors / np.maximum(lengths, 1e-9)[:, None]
