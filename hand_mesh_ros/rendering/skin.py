"""Skin without pictures: albedo of a hand as a function of where on the resting hand a point lies."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.frames import fingertip_axes_at_rest
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS
from hand_mesh_ros.hand_model.model import RestHand
from hand_mesh_ros.rendering.shading import srgb_to_linear

#: sRGB of the back of the hand, from the lightest skin to the darkest.
_TONES = np.array(
    [(241, 200, 178), (224, 177, 148), (198, 146, 114), (160, 112, 82), (112, 75, 54), (72, 48, 37)]
)
_NAIL_PINK = np.array([1.12, 0.98, 0.95])
_REDDENING = np.array([0.97, 0.74, 0.70])
_CREASE = np.array([0.72, 0.58, 0.55])

#: Joints at which skin folds, and the next joint or the tip each one's bone leads to.
_FINGER_JOINTS = np.arange(1, 16).reshape(5, 3)
_FINGER_TIP_ROWS = (1, 2, 4, 3, 0)  #: fingers in MANO order -> rows of the tips, thumb to pinky


def skin_albedo(
    rest: RestHand, side: Side, points: np.ndarray, normals: np.ndarray, tone: float, seed: int = 0
) -> np.ndarray:
    """Albedo (N,3) float32, linear RGB 0..1, of points on the surface of a resting hand.

    Palms are lighter, knuckles and fingertips redder, joints creased, nails pinker; slow blotches over all.

    :param rest: the hand at zero pose that the points lie on, in model axes.
    :param points: (N,3) metres: its vertices, or points between them.
    :param normals: (N,3) outward unit normals there.
    :param tone: 0 the lightest skin .. 1 the darkest.
    :param seed: of the blotches.
    """
    points, normals = np.asarray(points, np.float64), np.asarray(normals, np.float64)
    tones = srgb_to_linear(_TONES / 255.0).astype(np.float64)
    place = np.clip(tone, 0.0, 1.0) * (len(tones) - 1)
    base = np.array([np.interp(place, np.arange(len(tones)), tones[:, k]) for k in range(3)])
    palm_colour = base + (tones[0] * (1.0, 0.80, 0.76) - base) * (0.22 + 0.25 * tone)

    backward = _smoothstep(-0.35, 0.45, normals[:, 1])[:, None]
    albedo = palm_colour + (base - palm_colour) * backward
    albedo *= 1.0 + 0.07 * _blotches(points, seed)[:, None]
    redness, creases = _knuckles(rest, points, backward[:, 0])
    tips, nails = _tips(rest, side, points, normals)
    albedo *= 1.0 + (_REDDENING - 1.0) * np.maximum(0.8 * redness, 0.55 * tips)[:, None]
    albedo *= 1.0 + (_CREASE - 1.0) * creases[:, None]
    nail_colour = (0.65 * base + 0.35 * palm_colour) * _NAIL_PINK
    albedo += (nail_colour - albedo) * nails[:, None]
    return np.clip(albedo, 0.0, 1.0).astype(np.float32)


def _knuckles(rest: RestHand, points: np.ndarray, backward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Redness (N,) over the knuckles of the back, and strength (N,) of the creases across the fingers."""
    redness, creases = np.zeros(len(points)), np.zeros(len(points))
    tips = rest.keypoints[list(TIP_KEYPOINTS)]
    for finger, joints in enumerate(_FINGER_JOINTS):
        chain = np.vstack([rest.joints[joints], tips[_FINGER_TIP_ROWS[finger]]])
        for k in range(3):
            if finger == 4 and k == 0:
                continue  # the thumb's root lies deep in the palm
            bone = chain[k + 1] - chain[k]
            offset = points - chain[k]
            along = offset @ (bone / np.linalg.norm(bone))
            distance = np.linalg.norm(offset, axis=1)
            redness = np.maximum(redness, np.exp(-((distance / 0.011) ** 2)) * backward)
            if k == 0:
                continue  # over the row of knuckles the skin is smooth
            near = _smoothstep(0.016, 0.011, distance)
            folds = sum(np.exp(-(((along - shift) / 0.0009) ** 2)) for shift in (-0.0022, 0.0, 0.0022))
            creases = np.maximum(creases, near * folds * (0.35 + 0.25 * (1 - backward)))
    return redness, np.minimum(creases, 1.0)


def _tips(
    rest: RestHand, side: Side, points: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share (N,) of fingertip and of nail in each point."""
    tips, nails = np.zeros(len(points)), np.zeros(len(points))
    tip_points = rest.keypoints[list(TIP_KEYPOINTS)]
    last_joints = rest.joints[_FINGER_JOINTS[list(np.argsort(_FINGER_TIP_ROWS)), 2]]
    frames = fingertip_axes_at_rest(side, last_joints, tip_points)
    lengths = np.linalg.norm(tip_points - last_joints, axis=1)
    for tip, axes, length in zip(tip_points, frames, lengths, strict=True):
        outward, across, _ = ((points - tip) @ axes).T
        beside = np.linalg.norm((points - tip) @ axes[:, 1:], axis=1)
        tips = np.maximum(tips, _smoothstep(-0.55 * length, -0.05 * length, outward) * (beside < 0.016))
        # A nail is a rounded rectangle on the back of the last bone, its free edge just behind the tip.
        middle, half_length, half_width = -0.28 * length, 0.26 * length, 0.20 * length
        shape = np.abs((outward - middle) / half_length) ** 3 + np.abs(across / half_width) ** 3
        nails = np.maximum(
            nails,
            _smoothstep(1.15, 0.8, shape) * _smoothstep(0.2, 0.5, normals @ axes[:, 2]) * (beside < 0.016),
        )
    return tips, nails


def _blotches(points: np.ndarray, seed: int) -> np.ndarray:
    """Smooth noise (N,) of about unit size, a few centimetres long."""
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(0.0, 110.0, (10, 3)), rng.uniform(0.0, 2 * np.pi, 10)
    return np.sin(points @ waves.T + phases).sum(1) / np.sqrt(5.0)


def _smoothstep(start: float, end: float, value: np.ndarray) -> np.ndarray:
    """0 before ``start``, 1 after ``end`` (either way round), smooth between."""
    share = np.clip((value - start) / (end - start), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)
