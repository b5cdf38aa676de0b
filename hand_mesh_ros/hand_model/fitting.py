"""Fits the hand model to what a landmark detector saw, or to 3D keypoints that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand_model.fit_terms import (
    BetasPrior,
    HandState,
    NormalEquations,
    Pixels,
    Points,
    PosePrior,
    Shape,
    Term,
)
from hand_mesh_ros.hand_model.initial_pose import initial_pose
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS
from hand_mesh_ros.hand_model.kinematics import BETAS, PARAMETERS, KeypointKinematics
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.placement import place

#: How well landmarks, or pixels with depths, tell the figure of a hand, metres.
_FIGURE_SIGMA = 0.01

#: How well pixels tell where keypoints are, as a share of the hand's size in the image.
_PIXEL_SIGMA = 0.07

#: How well given 3D points are to be met, metres.
_POINT_SIGMA = 0.0005

#: Median distance of a fit from pixels, as a share of the hand's size in the image, and from a figure, in
#: metres, above which it contradicts them.
_CONTRADICTION_PX = 0.15
_CONTRADICTION_M = 0.02

#: Disagreement of a keypoint that halves its confidence: share of the hand's size in the image, and metres.
_DOUBTFUL_PX = 0.1
_DOUBTFUL_M = 0.01

#: Bones whose proportion differs by more than this share from that of the others end at a wrong landmark.
_SIMILAR_BONES = 0.5

#: Smaller than these, in metres and in pixels, nothing is a hand.
_SMALLEST_BONE, _SMALLEST_IMAGE = 1e-6, 0.5

_MAX_ITERATIONS = 30
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-6, 1e6

#: Share of the cost that a step must save for another one to be worth it.
_WORTHWHILE = 1e-2

_PARENTS = np.array(KEYPOINT_PARENTS[1:])


@dataclass(frozen=True, eq=False)
class HandFit:
    """The hand that explains some landmarks. Float64; parameters are those of ``HandModel.posed``."""

    global_orient: np.ndarray  #: (3,) radians
    hand_pose: np.ndarray  #: (45,) radians
    betas: np.ndarray  #: (10,)
    transl: np.ndarray  #: (3,) metres
    keypoints_3d: np.ndarray  #: (21,3) metres
    residual_px: np.ndarray | None  #: (21,) from each keypoint seen to the fitted one; None without pixels
    size_px: float | None  #: of the hand seen: median distance of its keypoints from their median
    residual_m: np.ndarray | None  #: (21,) from each 3D landmark to the fitted keypoint, mean of figures
    iterations: int


@dataclass(frozen=True, eq=False)
class _Solution:
    state: HandState
    keypoints: np.ndarray  # (21,3)
    cost: float
    iterations: int


def fit_hand(
    model: HandModel,
    keypoints_px: np.ndarray,
    landmarks_world: np.ndarray | None,
    camera: Camera,
    *,
    keypoints_depth: np.ndarray | None = None,
    betas: np.ndarray | None = None,
    fit_shape: bool = True,
    weights: np.ndarray | None = None,
) -> HandFit:
    """Fit the hand to what a landmark detector saw in one image; the result is in the camera optical frame.

    All keypoints are in the 21-keypoint order. ``keypoints_px`` (21,2) are pixels of ``camera``;
    ``keypoints_depth`` (21,), or None, tells how much further from the camera one is than another, in pixels
    too. ``landmarks_world`` (21,3), or None, has axes along the camera's and any origin; of its size only the
    proportions count, since no detector can tell it from one image. ``betas`` (10,), zeros by default, is the
    shape to start from: with ``fit_shape`` it is adapted without changing the hand's length, else it stays.
    ``weights`` (21,) not negative, ones by default, says how much each keypoint counts.

    Levenberg-Marquardt over pixels, the figures that landmarks and depths make, and a wide prior (see
    ``fit_terms``), started from a figure in closed form. Where the result contradicts the pixels or every
    figure, the other figure and the mean pose are tried as starts as well, and the best result is taken.

    Raises FrameError where the input is not finite or no hand in front of the camera explains it.
    """
    keypoints_px = _checked(keypoints_px, (21, 2), 'keypoints')
    betas = np.zeros(10) if betas is None else _checked(betas, (10,), 'betas')
    weights = _checked_weights(weights)
    seen = weights > 0.0
    size_px = image_size(keypoints_px)
    rays = camera.rays(keypoints_px)
    if not np.isfinite(rays).all():
        raise FrameError('a keypoint lies where the lens of this camera sees nothing')
    focal = np.array([camera.fx, camera.fy])
    kinematics = KeypointKinematics(model)

    figures = []
    if landmarks_world is not None:
        figures.append(_checked(landmarks_world, (21, 3), 'landmarks'))
    if keypoints_depth is not None:
        figures.append(np.column_stack([rays * focal, _checked(keypoints_depth, (21,), 'depths')]))
    rest = kinematics.rest_keypoints(betas)
    figures = [_turned_into_view(figure * _size_ratio(rest, figure), rays) for figure in figures]
    shapes = [Shape(figure, _FIGURE_SIGMA, weights) for figure in figures]
    terms: list[Term] = [Pixels(rays, focal, _PIXEL_SIGMA * size_px, weights), PosePrior(model), *shapes]
    if fit_shape:
        terms.append(BetasPrior(kinematics, betas, keep_length=True))

    best: _Solution | None = None
    failure = None
    for start in (*figures, None):
        try:
            if start is None:
                orientation, hand_pose = _mean_pose_towards(kinematics, model, betas, rays, seen)
            else:
                orientation, hand_pose = initial_pose(rest, start, model.pose_limits)
            keypoints, _ = kinematics.keypoints(orientation, hand_pose, betas, np.zeros(3))
            transl = place(keypoints, keypoints_px, camera, weights)
        except FrameError as error:
            failure = error
            continue
        found = minimised(kinematics, terms, HandState(orientation, hand_pose, betas, transl), fit_shape)
        if best is None or found.cost < best.cost:
            best = found
        residual_px = np.linalg.norm(camera.project(best.keypoints) - keypoints_px, axis=1)
        residual_m = [np.linalg.norm(shape.differences(best.keypoints), axis=1) for shape in shapes]
        nearest_m = min((np.median(residuals[seen]) for residuals in residual_m), default=0.0)
        if np.median(residual_px[seen]) < _CONTRADICTION_PX * size_px and nearest_m < _CONTRADICTION_M:
            break
    if best is None:
        raise FrameError('no hand in front of the camera explains the keypoints') from failure
    return _as_fit(best, residual_px, size_px, np.mean(residual_m, axis=0) if residual_m else None)


def fit_points(
    model: HandModel,
    points: np.ndarray,
    betas: np.ndarray | None = None,
    fit_shape: bool = False,
    weights: np.ndarray | None = None,
) -> HandFit:
    """Fit the hand to 3D keypoints ``points`` (21,3), metres, that are known: annotations, not guesses.

    The result is in the frame of ``points``. ``betas`` (10,), zeros by default, is the hand's shape, or with
    ``fit_shape`` the one to start from; ``weights`` (21,) as for :func:`fit_hand`.

    Raises FrameError where the input is not finite or no figure at all.
    """
    points = _checked(points, (21, 3), 'points')
    betas = np.zeros(10) if betas is None else _checked(betas, (10,), 'betas')
    weights = _checked_weights(weights)
    kinematics = KeypointKinematics(model)
    terms: list[Term] = [Points(points, _POINT_SIGMA, weights), PosePrior(model)]
    if fit_shape:
        terms.append(BetasPrior(kinematics, betas, keep_length=False))
    _bone_lengths(points)
    orientation, hand_pose = initial_pose(kinematics.rest_keypoints(betas), points, model.pose_limits)
    keypoints, _ = kinematics.keypoints(orientation, hand_pose, betas, np.zeros(3))
    transl = (points - keypoints).mean(axis=0)
    solution = minimised(kinematics, terms, HandState(orientation, hand_pose, betas, transl), fit_shape)
    return _as_fit(solution, None, None, np.linalg.norm(solution.keypoints - points, axis=1))


def joint_confidence(fit: HandFit, score: float) -> np.ndarray:
    """Confidence (21,) float64, 0 to 1, of each keypoint of a fit to a detection of this ``score`` (0 to 1).

    ``score / (1 + (d_k + mean(d)) / 2)``, where ``d_k`` is the squared disagreement of keypoint k: with its
    pixel, in tenths of the hand's size in the image, plus with its 3D landmark, in centimetres. A landmark
    detector that contradicts itself so much that no hand explains it is the best sign of its failure; hence
    the mean over the whole hand.
    """
    doubt = np.zeros(21)
    if fit.residual_px is not None and fit.size_px is not None:
        doubt += (fit.residual_px / (_DOUBTFUL_PX * fit.size_px)) ** 2
    if fit.residual_m is not None:
        doubt += (fit.residual_m / _DOUBTFUL_M) ** 2
    return score / (1.0 + (doubt + doubt.mean()) / 2.0)


def _mean_pose_towards(
    kinematics: KeypointKinematics, model: HandModel, betas: np.ndarray, rays: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The orientation (3,3) in which the mean pose comes nearest to the rays (21,2), and that pose (45,)."""
    keypoints, _ = kinematics.keypoints(np.eye(3), model.hands_mean, betas, np.zeros(3))
    try:
        found, turn, _ = cv2.solvePnP(
            keypoints[seen], rays[seen], np.eye(3), np.zeros(4), flags=cv2.SOLVEPNP_SQPNP
        )
    except cv2.error:  # it refuses hands of a few pixels
        found = False
    if not found:
        raise FrameError('no orientation of the hand explains the keypoints')
    return rotation_matrices(np.ravel(turn)), model.hands_mean


def minimised(
    kinematics: KeypointKinematics, terms: Sequence[Term], start: HandState, fit_shape: bool
) -> _Solution:
    """Levenberg-Marquardt with Marquardt's scaling; D. Marquardt, SIAM J. Appl. Math. 11(2), 1963.

    OpenCV does the linear algebra: on a busy machine a threaded BLAS takes milliseconds for it.
    """
    free = PARAMETERS if fit_shape else BETAS.start

    def at(state: HandState) -> tuple[np.ndarray, NormalEquations]:
        keypoints, by_parameters = kinematics.keypoints(
            state.orientation, state.hand_pose, state.betas, state.transl
        )
        equations = NormalEquations()
        for term in terms:
            term.add_to(equations, state, keypoints, by_parameters)
        return keypoints, equations

    state, (keypoints, equations) = start, at(start)
    damping = _FIRST_DAMPING
    iterations = 0
    while iterations < _MAX_ITERATIONS and damping < _MOST_DAMPING:
        iterations += 1
        step = np.zeros(PARAMETERS)
        damped = _damped(equations.curvature, damping, free)
        solvable, downhill = cv2.solve(damped, -equations.slope[:free], flags=cv2.DECOMP_CHOLESKY)
        if not solvable:
            damping *= 10.0
            continue
        step[:free] = downhill[:, 0]
        ahead = state.moved(step)
        keypoints_ahead, tried = at(ahead)
        if not tried.cost < equations.cost:
            damping *= 10.0
            continue
        saved = 1.0 - tried.cost / equations.cost
        state, keypoints, equations = ahead, keypoints_ahead, tried
        if saved < _WORTHWHILE:
            break
        damping = max(damping / 5.0, _LEAST_DAMPING)
    return _Solution(state, keypoints, equations.cost, iterations)


@compiled
def _damped(curvature, damping, free):  # type: ignore[no-untyped-def]
    """The symmetric matrix of the first ``free`` rows of a lower half, its diagonal enlarged by a share."""
    matrix = np.empty((free, free))
    for i in range(free):
        for k in range(i):
            matrix[i, k] = matrix[k, i] = curvature[i, k]
        matrix[i, i] = curvature[i, i] * (1.0 + damping)
    return matrix


def _as_fit(
    solution: _Solution, residual_px: np.ndarray | None, size_px: float | None, residual_m: np.ndarray | None
) -> HandFit:
    state = solution.state
    return HandFit(
        global_orient=axis_angles(state.orientation),
        hand_pose=state.hand_pose,
        betas=state.betas,
        transl=state.transl,
        keypoints_3d=solution.keypoints,
        residual_px=residual_px,
        size_px=size_px,
        residual_m=residual_m,
        iterations=solution.iterations,
    )


def _turned_into_view(landmarks: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Landmarks (21,3) as the camera has them, from those of a detector that looked straight at the hand.

    A detector sees a crop of the image and takes the hand for one in the middle of its view; in truth it is
    turned by the angle between the optical axis and the ray (21,2) to the hand.
    """
    ray = np.append(rays.mean(axis=0), 1.0)
    axis = np.cross([0.0, 0.0, 1.0], ray)
    length = np.linalg.norm(axis)
    angle = np.arctan2(length, 1.0)
    return landmarks @ rotation_matrices(axis * (angle / max(length, 1e-12))).T


def _size_ratio(model_keypoints: np.ndarray, landmarks: np.ndarray) -> float:
    """How many times larger the first hand (21,3) is than the second, whatever their poses.

    The ratio of the summed lengths of their bones, without those that a wrong landmark pulls apart.
    """
    lengths, seen = _bone_lengths(model_keypoints), _bone_lengths(landmarks)
    typical = np.median(seen / lengths)
    right = np.abs(seen / lengths - typical) <= _SIMILAR_BONES * typical
    return float(lengths[right].sum() / seen[right].sum())


def _bone_lengths(keypoints: np.ndarray) -> np.ndarray:
    """Lengths (20,) of the bones of a hand (21,3)."""
    lengths = np.linalg.norm(keypoints[1:] - keypoints[_PARENTS], axis=1)
    if np.median(lengths) < _SMALLEST_BONE:
        raise FrameError('the 3D keypoints are all at one place')
    return lengths


def image_size(keypoints_px: np.ndarray) -> float:
    """Median distance of keypoints (21,2) from their median, so that single wrong ones do not matter."""
    size = float(np.median(np.linalg.norm(keypoints_px - np.median(keypoints_px, axis=0), axis=1)))
    if size < _SMALLEST_IMAGE:
        raise FrameError('the keypoints are all on one pixel')
    return size


def _checked(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    values = np.array(values, np.float64)
    if values.shape != shape:
        raise FrameError(f'{name} must have the shape {shape}, got {values.shape}')
    if not np.isfinite(values).all():
        raise FrameError(f'{name} hold a number that is not finite')
    return values


def _checked_weights(weights: np.ndarray | None) -> np.ndarray:
    if weights is None:
        return np.ones(21)
    checked = _checked(weights, (21,), 'weights')
    if checked.min() < 0.0 or np.count_nonzero(checked) < 4:
        raise FrameError('weights must not be negative, and at least four keypoints must have one')
    return checked
