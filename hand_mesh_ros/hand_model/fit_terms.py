"""What a fit of the hand model minimises: one class a kind of evidence.

At any state of the hand a term tells its cost, and of residuals whose sum of squares has the gradient of the
cost the normal equations. Under a robust kernel the residuals are weighted (iteratively reweighted least
squares).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.hand_model.kinematics import BETAS, ORIENT, PARAMETERS, POSE, TRANSL, KeypointKinematics
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

_POSE, _BETAS = (np.arange(columns.start, columns.stop) for columns in (POSE, BETAS))


@dataclass(frozen=True, eq=False)
class HandState:
    """The parameters of a hand while they are sought."""

    orientation: np.ndarray  #: (3,3)
    hand_pose: np.ndarray  #: (45,)
    betas: np.ndarray  #: (10,)
    transl: np.ndarray  #: (3,)

    def moved(self, step: np.ndarray) -> HandState:
        """The state a step (61,) further, in the Jacobian's parameters (see ``kinematics``)."""
        return HandState(
            self.orientation @ rotation_matrices(step[ORIENT]),
            self.hand_pose + step[POSE],
            self.betas + step[BETAS],
            self.transl + step[TRANSL],
        )


@dataclass(eq=False)
class NormalEquations:
    """Costs, and residuals r with their Jacobian J, summed up: cost, transposed J J and transposed J r."""

    cost: float = 0.0
    curvature: np.ndarray = field(default_factory=lambda: np.zeros((PARAMETERS, PARAMETERS)))  #: lower half
    slope: np.ndarray = field(default_factory=lambda: np.zeros(PARAMETERS))

    def add(
        self,
        residuals: np.ndarray,
        jacobian: np.ndarray,
        weights: np.ndarray,
        outlier: float = np.inf,
    ) -> None:
        """Adds N residual vectors (N,D), Jacobian (N,D,61), each of a given weight (N,).

        ``outlier`` is that of the robust kernel; without it these are squares.
        """
        self.cost += _add(residuals, jacobian, weights, outlier, self.curvature, self.slope)

    def add_of_single(self, columns: np.ndarray, residuals: np.ndarray, rates: np.ndarray) -> None:
        """Adds residuals (N,) each of which depends on one parameter alone, at such a rate (N,)."""
        self.cost += float(residuals @ residuals)
        self.curvature[columns, columns] += rates * rates
        self.slope[columns] += rates * residuals


class Term(Protocol):
    """One kind of evidence."""

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        """Adds the term where the keypoints (21,3) have the Jacobian (21,3,61)."""
        ...


class Points:
    """The keypoints are at ``points`` (21,3), metres, to within ``sigma``, none of them an outlier."""

    def __init__(self, points: np.ndarray, sigma: float, weights: np.ndarray) -> None:
        self._points, self._weights = points, weights / sigma**2

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        equations.add(keypoints - self._points, jacobian, self._weights)


class Shape:
    """The keypoints form the figure ``points`` (21,3), wherever it is, to within ``sigma``."""

    def __init__(self, points: np.ndarray, sigma: float, weights: np.ndarray) -> None:
        self._points, self._sigma, self._weights = points, sigma, weights

    def differences(self, keypoints: np.ndarray) -> np.ndarray:
        """Keypoints (21,3) minus the figure, laid over them so that outliers do not matter: (21,3) metres."""
        differences = keypoints - self._points
        differences = differences - _mean(differences, self._weights)
        trust = _trust(differences / self._sigma)
        return differences - _mean(differences, self._weights * trust)

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        residuals = self.differences(keypoints) / self._sigma
        trust = _trust(residuals)
        # The figure is laid over the keypoints anew wherever they go
        shares = self._weights * trust / np.sum(self._weights * trust)
        relative = jacobian - np.tensordot(shares, jacobian, 1)
        equations.add(residuals, relative / self._sigma, self._weights, _OUTLIER)


class Pixels:
    """The keypoints appear along ``rays`` (21,2), to within ``sigma`` pixels at focal lengths ``focal``."""

    def __init__(self, rays: np.ndarray, focal: np.ndarray, sigma: float, weights: np.ndarray) -> None:
        self._targets, self._focal = rays * focal / sigma, focal / sigma
        self._weights = weights

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        depth = keypoints[:, 2:]
        if depth.min() < _NEAREST:
            equations.cost = np.inf
            return
        rays = keypoints[:, :2] / depth
        by_parameters = (jacobian[:, :2] - rays[:, :, None] * jacobian[:, 2:]) / depth[:, :, None]
        residuals = rays * self._focal - self._targets
        equations.add(residuals, by_parameters * self._focal[:, None], self._weights, _OUTLIER)


class PosePrior:
    """Joints are near the model's mean pose, by half of their range, and hardly beyond their limits."""

    def __init__(self, model: HandModel) -> None:
        self._lower, self._upper = model.pose_limits.T
        self._mean = model.hands_mean
        self._sigma = (self._upper - self._lower) / 2

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        pose = state.hand_pose
        beyond = pose - np.clip(pose, self._lower, self._upper)
        equations.add_of_single(_POSE, (pose - self._mean) / self._sigma, 1.0 / self._sigma)
        equations.add_of_single(_POSE, beyond / _LIMIT_SIGMA, (beyond != 0.0) / _LIMIT_SIGMA)


class BetasPrior:
    """The shape is near ``betas``, to within 1 each; with ``keep_length`` the hand is as long as theirs."""

    def __init__(self, kinematics: KeypointKinematics, betas: np.ndarray, keep_length: bool) -> None:
        self._kinematics, self._betas = kinematics, betas
        self._length = kinematics.hand_length(betas)[0] if keep_length else None

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        equations.add_of_single(_BETAS, state.betas - self._betas, np.ones(10))
        if self._length is not None:
            length, by_betas = self._kinematics.hand_length(state.betas)
            row = np.zeros((1, 1, PARAMETERS))
            row[0, 0, BETAS] = by_betas
            too_long = np.array([[length - self._length]])
            equations.add(too_long, row, np.array([_LENGTH_SIGMA**-2]))


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of the rows of ``values`` (N,3)."""
    return weights @ values / weights.sum()


def _trust(residuals: np.ndarray) -> np.ndarray:
    """The weights (N,) that the robust kernel gives to residual vectors (N,3); see ``_add``."""
    squared = np.einsum('nd,nd->n', residuals, residuals)
    return 1.0 / (1.0 + squared / _OUTLIER**2) ** 2


@compiled
def _add(residuals, jacobian, weights, outlier, curvature, slope):  # type: ignore[no-untyped-def]
    """Adds to normal equations what ``NormalEquations.add`` is given; the cost of it.

    The robust kernel is r^2 / (1 + r^2 / c^2): S. Geman, D. McClure, "Statistical methods for tomographic
    image reconstruction", 1987.
    """
    cost = 0.0
    held, entries = np.empty(jacobian.shape[2], np.int64), np.empty(jacobian.shape[2])
    for n in range(len(residuals)):
        squared = 0.0
        for d in range(residuals.shape[1]):
            squared += residuals[n, d] ** 2
        damping = 1.0 / (1.0 + squared / outlier**2)
        cost += weights[n] * squared * damping
        weight = weights[n] * damping**2
        for d in range(residuals.shape[1]):
            # Most parameters move none but a few of the keypoints
            count = 0
            for p in range(jacobian.shape[2]):
                if jacobian[n, d, p] != 0.0:
                    held[count], entries[count] = p, jacobian[n, d, p]
                    count += 1
            for i in range(count):
                weighted = weight * entries[i]
                slope[held[i]] += weighted * residuals[n, d]
                row = curvature[held[i]]
                for k in range(i + 1):
                    row[held[k]] += weighted * entries[k]
    return cost
