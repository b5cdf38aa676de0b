"""What a fit of the hand model minimises: one class a kind of evidence.

At any state of the hand a term tells its cost, and residuals with their Jacobian whose sum of squares has
the gradient of the cost. Under a robust kernel the residuals are weighted (iteratively reweighted least
squares).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hand_mesh_ros.hand_model.kinematics import BETAS, PARAMETERS, POSE, KeypointKinematics
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import rotation_matrices

#: Residuals, in standard deviations, beyond which a landmark or a pixel is taken for wrong.
_OUTLIER = 5.0

#: How far a joint gives beyond its limits, radians.
_LIMIT_SIGMA = 0.02

#: How far a fit may stray from the hand length it was given, metres.
_LENGTH_SIGMA = 0.001

#: Keypoints nearer to the image plane than this, metres, have no pixels.
_NEAREST = 1e-3


@dataclass(frozen=True, eq=False)
class HandState:
    """The parameters of a hand while they are sought."""

    orientation: np.ndarray  #: (3,3)
    hand_pose: np.ndarray  #: (45,)
    betas: np.ndarray  #: (10,)
    transl: np.ndarray  #: (3,)

    def moved(self, step: np.ndarray) -> HandState:
        """The state a step (61,) further, in the Jacobian's parameters (see ``kinematics``)."""
        orient, pose, transl, betas = np.split(step, [3, 48, 51])
        return HandState(
            self.orientation @ rotation_matrices(orient),
            self.hand_pose + pose,
            self.betas + betas,
            self.transl + transl,
        )


@dataclass(frozen=True, eq=False)
class Linearised:
    """A term at one state."""

    cost: float
    residuals: np.ndarray  #: (N,)
    jacobian: np.ndarray  #: (N,61)


class Term(Protocol):
    """One kind of evidence."""

    def at(self, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray) -> Linearised:
        """The term where the keypoints (21,3) have the Jacobian (21,3,61)."""
        ...


class Points:
    """The keypoints are at ``points`` (21,3), metres, to within ``sigma``, none of them an outlier."""

    def __init__(self, points: np.ndarray, sigma: float, weights: np.ndarray) -> None:
        self._points = points
        self._scale = np.sqrt(weights)[:, None] / sigma

    def at(self, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray) -> Linearised:
        residuals = ((keypoints - self._points) * self._scale).reshape(-1)
        rows = (jacobian * self._scale[:, :, None]).reshape(-1, PARAMETERS)
        return Linearised(float(residuals @ residuals), residuals, rows)


class Shape:
    """The keypoints form the figure ``points`` (21,3), wherever it is, to within ``sigma``."""

    def __init__(self, points: np.ndarray, sigma: float, weights: np.ndarray) -> None:
        self._points, self._sigma, self._weights = points, sigma, weights

    def differences(self, keypoints: np.ndarray) -> np.ndarray:
        """Keypoints (21,3) minus the figure, laid over them so that outliers do not matter: (21,3) metres."""
        differences = keypoints - self._points
        differences = differences - np.average(differences, axis=0, weights=self._weights)
        _, trust = _geman_mcclure(differences / self._sigma)
        return differences - np.average(differences, axis=0, weights=self._weights * trust)

    def at(self, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray) -> Linearised:
        residuals = self.differences(keypoints) / self._sigma
        _, trust = _geman_mcclure(residuals)
        # The figure is laid over the keypoints anew wherever they go
        shares = self._weights * trust / np.sum(self._weights * trust)
        relative = jacobian - np.tensordot(shares, jacobian, 1)
        return _robust(residuals, relative / self._sigma, self._weights)


class Pixels:
    """The keypoints appear along ``rays`` (21,2), to within ``sigma`` pixels at focal lengths ``focal``."""

    def __init__(self, rays: np.ndarray, focal: np.ndarray, sigma: float, weights: np.ndarray) -> None:
        self._targets, self._focal = rays * focal / sigma, focal / sigma
        self._weights = weights

    def at(self, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray) -> Linearised:
        depth = keypoints[:, 2:]
        if depth.min() < _NEAREST:
            return Linearised(np.inf, np.zeros(0), np.zeros((0, PARAMETERS)))
        rays = keypoints[:, :2] / depth
        by_parameters = (jacobian[:, :2] - rays[:, :, None] * jacobian[:, 2:]) / depth[:, :, None]
        residuals = rays * self._focal - self._targets
        return _robust(residuals, by_parameters * self._focal[:, None], self._weights)


class PosePrior:
    """Joints are near the model's mean pose, by half of their range, and hardly beyond their limits."""

    def __init__(self, model: HandModel) -> None:
        self._lower, self._upper = model.pose_limits.T
        self._mean = model.hands_mean
        self._sigma = (self._upper - self._lower) / 2
        self._jacobian = np.zeros((90, PARAMETERS))
        self._jacobian[:45, POSE] = np.diag(1 / self._sigma)

    def at(self, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray) -> Linearised:
        pose = state.hand_pose
        beyond = pose - np.clip(pose, self._lower, self._upper)
        residuals = np.concatenate([(pose - self._mean) / self._sigma, beyond / _LIMIT_SIGMA])
        rows = self._jacobian.copy()
        rows[45:, POSE] = np.diag((beyond != 0) / _LIMIT_SIGMA)
        return Linearised(float(residuals @ residuals), residuals, rows)


class BetasPrior:
    """The shape is near ``betas``, to within 1 each; with ``keep_length`` the hand is as long as theirs."""

    def __init__(self, kinematics: KeypointKinematics, betas: np.ndarray, keep_length: bool) -> None:
        self._kinematics, self._betas = kinematics, betas
        self._length = kinematics.hand_length(betas)[0] if keep_length else None
        self._jacobian = np.zeros((11 if keep_length else 10, PARAMETERS))
        self._jacobian[:10, BETAS] = np.eye(10)

    def at(self, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray) -> Linearised:
        residuals = state.betas - self._betas
        rows = self._jacobian
        if self._length is not None:
            length, by_betas = self._kinematics.hand_length(state.betas)
            residuals = np.append(residuals, (length - self._length) / _LENGTH_SIGMA)
            rows = rows.copy()
            rows[10, BETAS] = by_betas / _LENGTH_SIGMA
        return Linearised(float(residuals @ residuals), residuals, rows)


def _geman_mcclure(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs (N,) of the residual vectors (N,D) under the kernel r^2 / (1 + r^2 / c^2), and its weights (N,).

    S. Geman, D. McClure, "Statistical methods for tomographic image reconstruction", 1987.
    """
    squared = np.einsum('nd,nd->n', residuals, residuals)
    damping = 1.0 / (1.0 + squared / _OUTLIER**2)
    return squared * damping, damping**2


def _robust(residuals: np.ndarray, jacobian: np.ndarray, weights: np.ndarray) -> Linearised:
    """The term of N residual vectors (N,D), Jacobian (N,D,61), each of a given weight (N,)."""
    costs, trust = _geman_mcclure(residuals)
    scale = np.sqrt(weights * trust)
    return Linearised(
        cost=float(weights @ costs),
        residuals=(residuals * scale[:, None]).reshape(-1),
        jacobian=(jacobian * scale[:, None, None]).reshape(-1, PARAMETERS),
    )
