"""What surrounds a rendered hand: the arm and sleeve it belongs to, and a cluttered room behind it."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.rendering.shading import srgb_to_linear, vertex_normals
from hand_mesh_ros.rendering.skin import skin_albedo
from hand_mesh_ros.rendering.subdivision import Subdivision

#: Rings of the arm: how far from wrist to elbow, and how much wider than the wrist.
_SKIN_RINGS = ((0.05, 1.0), (0.12, 1.02), (0.20, 1.06), (0.30, 1.12))
#: The sleeve begins at the cuff's inner edge, so that it has a thickness.
_SLEEVE_RINGS = ((0.24, 1.12), (0.225, 1.22), (0.24, 1.36), (0.29, 1.38), (0.31, 1.30), *(
    (0.31 + 0.69 * k / 12, 1.30 + 0.75 * (k / 12) ** 0.8 + 0.035 * (-1) ** k) for k in range(1, 13)
))  # fmt: skip
_ARM_LENGTH_M = 0.27

#: Row of the room's picture, as a share of its height, where wall and table meet.
TABLE_EDGE = 0.86

#: sRGB colours of books, pictures and bowls: quiet, and none that could be taken for skin.
_FURNITURE = np.array(
    [(58, 78, 106), (92, 118, 112), (72, 72, 78), (126, 138, 142), (110, 122, 86), (156, 164, 158)]
    + [(70, 104, 124), (98, 70, 74), (176, 180, 176), (48, 66, 62)]
)


class ClothedHand:
    """A hand model's mesh with an arm grown onto its open wrist, a sleeve around that, and colours."""

    def __init__(
        self, model: HandModel, betas: np.ndarray, tone: float, cloth_srgb: tuple[int, int, int], seed: int
    ) -> None:
        """Dress a hand of shape ``betas`` (10,): ``tone`` as in ``skin_albedo``, cloth in 8-bit sRGB."""
        self._loop = boundary_loop(model.faces)
        rings = len(_SKIN_RINGS) + len(_SLEEVE_RINGS)
        grown = len(model.v_template) + np.arange(rings * len(self._loop)).reshape(rings, -1)
        skin, sleeve = grown[: len(_SKIN_RINGS)], grown[len(_SKIN_RINGS) :]
        coarse = np.concatenate([model.faces, tube_faces([self._loop, *skin]), tube_faces(list(sleeve))])
        self._coarse_faces = coarse
        self._fine = Subdivision(coarse, rounds=2)
        self.faces = self._fine.faces  #: (F,3) int32
        #: How many of the faces, from the first, are the hand's own; then come arm and sleeve.
        self.hand_faces = len(self.faces) // len(coarse) * len(model.faces)

        rest = model.posed(np.zeros(3), np.zeros(45), betas, np.zeros(3))
        behind = rest.keypoints[0] - _ARM_LENGTH_M * rest.T_camera_hand[:3, 0]
        points, normals = self.mesh(rest, behind)
        albedo = skin_albedo(model.rest(betas), model.side, points, normals, tone, seed)
        cloth = self._fine((np.arange(grown.max() + 1) >= sleeve[0, 0])[:, None].astype(np.float32))
        weave = 1.0 + 0.10 * np.random.default_rng(seed).uniform(-1.0, 1.0, (len(points), 1))
        cloth_colour = srgb_to_linear(np.array(cloth_srgb) / 255.0) * weave
        #: (V,3) float32 linear RGB
        self.albedo = np.where(cloth > 0.5, cloth_colour, albedo).astype(np.float32)

    def mesh(self, hand: PosedHand, elbow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) in metres and unit normals (V,3), the arm reaching to ``elbow`` (3,)."""
        loop = hand.vertices[self._loop]
        centre, backward = loop.mean(0), -hand.T_camera_hand[:3, 0]
        # A quadratic Bézier curve that leaves the wrist straight and ends at the elbow.
        bend = centre + backward * 0.35 * np.linalg.norm(elbow - centre)
        shape = np.array([*_SKIN_RINGS, *_SLEEVE_RINGS])
        along, width = shape[:, :1], shape[:, 1:]
        path = (1 - along) ** 2 * centre + 2 * along * (1 - along) * bend + along**2 * elbow
        tangents = (1 - along) * (bend - centre) + along * (elbow - bend)
        turns = smallest_turns(backward, tangents / np.linalg.norm(tangents, axis=1, keepdims=True))
        rings = path[:, None] + width[:, :, None] * np.einsum('rab,nb->rna', turns, loop - centre)
        vertices = np.concatenate([hand.vertices, rings.reshape(-1, 3)])
        # Normals of the coarse mesh, averaged between its vertices, hide that its triangles are flat.
        normals = self._fine(vertex_normals(vertices, self._coarse_faces))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return self._fine(vertices), normals


def cluttered_room(width: int, height: int, seed: int) -> np.ndarray:
    """Picture (H,W,3) uint8 sRGB of a shelf, frames and a table, out of focus as behind a near hand."""
    rng = np.random.default_rng(seed)
    wall, table = np.array([172.0, 178.0, 174.0]), np.array([112.0, 92.0, 78.0])
    shade = np.linspace(1.08, 0.80, width)[None, :, None] * np.linspace(1.04, 0.9, height)[:, None, None]
    room = np.clip(wall * shade, 0, 255).astype(np.uint8)
    for row in (0.30, 0.62):
        _draw_shelf(room, rng, int(row * height))
    for _ in range(4):
        _draw_frame(room, rng)
    cv2.rectangle(room, (0, int(TABLE_EDGE * height)), (width, height), table.tolist(), cv2.FILLED)
    for _ in range(9):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0.80, 0.97) * height))
        radius = int(rng.uniform(0.02, 0.06) * width)
        cv2.ellipse(
            room, centre, (radius, int(radius * 0.7)), 0, 0, 360, _muted(rng), cv2.FILLED, cv2.LINE_AA
        )
    blurred = cv2.GaussianBlur(room, (0, 0), 0.0035 * width)
    grain = cv2.GaussianBlur(rng.normal(0.0, 9.0, room.shape).astype(np.float32), (0, 0), 1.2)
    return np.clip(blurred + grain, 0, 255).astype(np.uint8)


def _draw_shelf(room: np.ndarray, rng: np.random.Generator, floor: int) -> None:
    height, width = room.shape[:2]
    x = int(rng.uniform(-0.02, 0.02) * width)
    while x < width:
        thickness = int(rng.uniform(0.015, 0.05) * width)
        if rng.random() < 0.8:
            top = floor - int(rng.uniform(0.14, 0.25) * height)
            colour = _muted(rng)
            cv2.rectangle(room, (x, top), (x + thickness, floor), colour, cv2.FILLED)
            band = [int(c * 0.6 + 90) for c in colour]
            cv2.rectangle(
                room, (x, top + height // 40), (x + thickness, top + height // 24), band, cv2.FILLED
            )
        x += thickness + 2
    cv2.rectangle(room, (0, floor), (width, floor + height // 40), (126, 106, 88), cv2.FILLED)


def _draw_frame(room: np.ndarray, rng: np.random.Generator) -> None:
    height, width = room.shape[:2]
    x, y = int(rng.uniform(0, 0.9) * width), int(rng.uniform(0.3, 0.7) * height)
    w, h = int(rng.uniform(0.08, 0.18) * width), int(rng.uniform(0.10, 0.2) * height)
    border = width // 128
    cv2.rectangle(room, (x, y), (x + w, y + h), (60, 56, 52), cv2.FILLED)
    cv2.rectangle(room, (x + border, y + border), (x + w - border, y + h - border), _muted(rng), cv2.FILLED)
    for _ in range(5):
        centre = (int(x + w * rng.uniform(0.1, 0.9)), int(y + h * rng.uniform(0.1, 0.9)))
        cv2.circle(
            room, centre, int(rng.uniform(0.2, 1.0) * width / 45), _muted(rng), cv2.FILLED, cv2.LINE_AA
        )


def _muted(rng: np.random.Generator) -> tuple[int, int, int]:
    """A furniture colour, a little different each time."""
    r, g, b = np.clip(rng.choice(_FURNITURE) * rng.uniform(0.8, 1.15) + rng.uniform(-8, 8, 3), 0, 255)
    return int(r), int(g), int(b)


def boundary_loop(faces: np.ndarray) -> np.ndarray:
    """Vertices around the one hole of a mesh, in the direction in which its faces run along it."""
    edges = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)}
    following = {a: b for a, b in edges if (b, a) not in edges}
    loop = [min(following)]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    if len(loop) != len(following):
        raise ValueError(
            f'the mesh has more than one hole: {len(loop)} of {len(following)} edges in the first'
        )
    return np.array(loop)


def tube_faces(rings: list[np.ndarray]) -> np.ndarray:
    """Triangles (F,3) between rings of equally many vertices, wound like the faces before the first."""
    faces = []
    for near, far in pairwise(rings):
        near_next, far_next = np.roll(near, -1), np.roll(far, -1)
        faces += [np.stack([near_next, near, far], 1), np.stack([near_next, far, far_next], 1)]
    return np.concatenate(faces)


def smallest_turns(start: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Smallest rotations (N,3,3) that turn the unit vector ``start`` (3,) to unit vectors ``ends`` (N,3)."""
    axes = np.cross(start, ends)
    cross = np.cross(axes[:, None, :], np.eye(3)).transpose(0, 2, 1)
    return np.eye(3) + cross + cross @ cross / (1.0 + ends @ start)[:, None, None]
