"""A picture of how reliable confidences are."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.evaluation.calibration import BINS, CONFIDENT_ERROR_M, Reliability

_PLOT, _COUNTS, _LEFT, _TOP, _GAP, _BOTTOM, _RIGHT = 400, 100, 70, 56, 16, 60, 20
_INK, _GRID, _BAR, _IDEAL, _SHARE = (40, 40, 40), (225, 225, 225), (84, 150, 235), (150, 150, 150), (130,) * 3
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def reliability_picture(reliability: Reliability, title: str) -> np.ndarray:
    """Picture (H,W,3) uint8 RGB: accuracy over confidence, and below it how many joints each bin has.

    A calibrated confidence has its bars end on the diagonal.
    """
    height = _TOP + _PLOT + _GAP + _COUNTS + _BOTTOM
    canvas = np.full((height, _LEFT + _PLOT + _RIGHT, 3), 255, np.uint8)
    base, counts_base = _TOP + _PLOT, _TOP + _PLOT + _GAP + _COUNTS
    for k in range(0, BINS + 1, 2):
        x, y = _LEFT + _PLOT * k // BINS, base - _PLOT * k // BINS
        cv2.line(canvas, (x, _TOP), (x, base), _GRID, 1)
        cv2.line(canvas, (_LEFT, y), (_LEFT + _PLOT, y), _GRID, 1)
        _write(canvas, f'{k / BINS:.1f}', (x - 11, counts_base + 18))
        _write(canvas, f'{k / BINS:.1f}', (_LEFT - 34, y + 5))
    most = max(int(reliability.counts.max()), 1)
    for k in range(BINS):
        left, right = _LEFT + _PLOT * k // BINS + 1, _LEFT + _PLOT * (k + 1) // BINS - 1
        if reliability.counts[k]:
            _bar(canvas, left, right, base, _PLOT * float(reliability.accuracy[k]), _BAR)
            _bar(canvas, left, right, counts_base, _COUNTS * float(reliability.counts[k]) / most, _SHARE)
            at = _LEFT + _PLOT * float(reliability.confidence[k])
            place = round(at), round(base - _PLOT * float(reliability.accuracy[k]))
            cv2.circle(canvas, place, 4, _INK, cv2.FILLED, cv2.LINE_AA)
    cv2.line(canvas, (_LEFT, base), (_LEFT + _PLOT, _TOP), _IDEAL, 1, cv2.LINE_AA)
    for bottom, extent in ((base, _PLOT), (counts_base, _COUNTS)):
        cv2.rectangle(canvas, (_LEFT, bottom - extent), (_LEFT + _PLOT, bottom), _INK, 1)
    _write(canvas, f'{title}: {int(reliability.counts.sum())} joints', (_LEFT, 20))
    _write(canvas, f'expected calibration error {reliability.expected_error:.3f}', (_LEFT, 42))
    _write(canvas, f'confidence (grey: joints in each bin, at most {most})', (_LEFT, counts_base + 42))
    upwards = np.full((_LEFT // 3, _PLOT, 3), 255, np.uint8)
    _write(upwards, f'share of joints within {1e3 * CONFIDENT_ERROR_M:.0f} mm', (90, 16))
    canvas[_TOP:base, 4 : 4 + _LEFT // 3] = np.rot90(upwards)
    return canvas


def _bar(
    canvas: np.ndarray, left: int, right: int, base: int, height: float, ink: tuple[int, int, int]
) -> None:
    cv2.rectangle(canvas, (left, round(base - height)), (right, base), ink, cv2.FILLED)


def _write(canvas: np.ndarray, text: str, at: tuple[int, int]) -> None:
    cv2.putText(canvas, text, at, _FONT, 0.45, _INK, 1, cv2.LINE_AA)
