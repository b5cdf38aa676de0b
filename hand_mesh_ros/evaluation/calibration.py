"""Whether a confidence is the probability that it claims to be, and how to make it one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: A confidence is the probability that a joint's error, once the hand is aligned to the truth by a
#: similarity, is below this. Metres.
CONFIDENT_ERROR_M = 0.010

#: Bins of confidence for reliability and its error.
BINS = 10

_NEWTON_STEPS, _SMALLEST_STEP = 50, 1e-10

#: Keeps the fit finite where log-variance parts the right joints from the wrong ones perfectly.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often joints of about the same confidence are right, in ``BINS`` equal bins of 0 to 1."""

    counts: np.ndarray  #: (BINS,) int64
    confidence: np.ndarray  #: (BINS,) mean of each bin; NaN in an empty one
    accuracy: np.ndarray  #: (BINS,) share of errors below ``CONFIDENT_ERROR_M``; NaN in an empty bin

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0 to 1: mean gap of confidence and accuracy; NaN without joints."""
        filled = self.counts > 0
        if not filled.any():
            return float('nan')
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(gaps, weights=self.counts[filled]))


def reliability(confidence: np.ndarray, errors_m: np.ndarray) -> Reliability:
    """Reliability of confidences, 0 to 1, of joints with errors in metres; any shape, the same for both.

    Joints of which either is NaN are left out.
    """
    known = np.isfinite(confidence) & np.isfinite(errors_m)
    confidence, right = confidence[known], errors_m[known] < CONFIDENT_ERROR_M
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid='ignore'):
        return Reliability(
            counts,
            np.bincount(bins, confidence, BINS) / counts,
            np.bincount(bins, right, BINS) / counts,
        )


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation of two arrays of the same shape, without the pairs that hold a NaN; NaN where none."""
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 2:
        return float('nan')
    ranks = np.array([_ranks(first[known]), _ranks(second[known])])
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=1).prod())
    return float(ranks[0] @ ranks[1] / spread) if spread > 0.0 else float('nan')


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) of values (N,), equal ones sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]


def calibrated_confidence(log_variance: np.ndarray, offset: float, slope: float) -> np.ndarray:
    """Confidences, 0 to 1, of log-variances of any shape: sigmoid(offset - slope * log_variance)."""
    # By tanh, which no argument makes overflow
    return 0.5 * (1.0 + np.tanh((offset - slope * np.asarray(log_variance, np.float64)) / 2.0))


def fit_calibration(log_variance: np.ndarray, errors_m: np.ndarray) -> tuple[float, float]:
    """Offset and slope of ``calibrated_confidence`` that make right joints likeliest.

    Logistic regression by Newton's method.

    :param log_variance: of any shape, as a network gives it.
    :param errors_m: of the same shape: PA-aligned errors in metres; right is below ``CONFIDENT_ERROR_M``.
    :raises ValueError: none of the joints, or all of them, are right: no calibration follows from that.
    """
    known = np.isfinite(log_variance) & np.isfinite(errors_m)
    values = np.asarray(log_variance, np.float64)[known]
    right = (errors_m[known] < CONFIDENT_ERROR_M).astype(np.float64)
    if not 0.0 < right.mean() < 1.0:
        raise ValueError('calibration needs joints with errors below and above its threshold')
    # Standardised, the two unknowns are of one size
    centre, spread = values.mean(), max(values.std(), 1e-12)
    inputs = np.column_stack([np.ones_like(values), (centre - values) / spread])
    weights = np.array([np.log(right.mean() / (1.0 - right.mean())), 0.0])
    cost = _cost(inputs, right, weights)
    for _ in range(_NEWTON_STEPS):
        probability = 0.5 * (1.0 + np.tanh(inputs @ weights / 2.0))
        gradient = inputs.T @ (probability - right) + _RIDGE * weights
        curvature = (inputs * (probability * (1.0 - probability))[:, None]).T @ inputs
        step = np.linalg.solve(curvature + _RIDGE * np.eye(2), gradient)
        # Far from the solution a whole step may overshoot
        while (ahead := _cost(inputs, right, weights - step)) > cost and np.abs(step).max() > _SMALLEST_STEP:
            step = step / 2.0
        weights, cost = weights - step, ahead
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    slope = weights[1] / spread
    return float(weights[0] + slope * centre), float(slope)


def _cost(inputs: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Negative log-likelihood, with the ridge."""
    logits = inputs @ weights
    return float((np.logaddexp(0.0, logits) - right * logits).sum() + _RIDGE * (weights @ weights) / 2.0)
