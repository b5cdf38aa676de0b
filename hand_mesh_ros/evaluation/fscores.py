"""F-scores of surfaces, as FreiHAND's evaluation defines them.

Source: A. Knapitsch et al., "Tanks and temples", 2017, used for hands by C. Zimmermann et al., "FreiHAND",
2019: precision and recall by nearest neighbours, at one distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def f_scores(predicted: np.ndarray, truth: np.ndarray, thresholds_m: Sequence[float]) -> list[float]:
    """F-score, 0 to 1, of vertices (N,3) against true ones (M,3), metres, at each threshold.

    The harmonic mean of the shares of either set that have one of the other nearer than the threshold.
    Align them before: see ``metrics.aligned``.
    """
    to_truth, to_predicted = _nearest_m(predicted, truth)
    scores = []
    for threshold in thresholds_m:
        precision, recall = float((to_truth < threshold).mean()), float((to_predicted < threshold).mean())
        scores.append(2.0 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return scores


def _nearest_m(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) of each of the first to the nearest of the second, and (M,) the other way round."""
    # About their middle, lest the difference of large squares lose digits
    middle = second.mean(axis=0)
    first, second = first - middle, second - middle
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2.0 * first @ second.T
    return np.sqrt(np.maximum(squared.min(1), 0.0)), np.sqrt(np.maximum(squared.min(0), 0.0))
