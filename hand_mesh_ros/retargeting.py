"""Keypoints as retargeting to robot hands takes them: in metres, from the wrist, in a frame of the palm.

It is the frame of dex-retargeting (https://github.com/dexsuite/dex-retargeting, whose configurations of robot
hands expect it): its axes come from the wrist and the knuckles of index and middle finger, so that neither
where the hand is nor how it is turned matters.
"""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Side

_WRIST, _INDEX_MCP, _MIDDLE_MCP = 0, 5, 9

#: Metres; knuckles nearer to each other, or to the wrist, say nothing of directions.
_LEAST_M = 1e-6


def retargeting_axes(keypoints_3d: np.ndarray, side: Side) -> np.ndarray:
    """Axes of the palm as columns: rotation matrix (3,3) float64, R_camera_palm for keypoints of a camera.

    z points from the wrist to the knuckle of the middle finger, x out of the palm, y = z cross x: to the
    thumb on a right hand, away from it on a left one.

    :param keypoints_3d: (21,3) metres, in any right-handed frame, 21-keypoint order.
    :raises FrameError: keypoints 0, 5 and 9 are not finite, or on one line.
    """
    palm = np.asarray(keypoints_3d, np.float64)[[_WRIST, _INDEX_MCP, _MIDDLE_MCP]]
    if not np.isfinite(palm).all():
        raise FrameError('a keypoint of the palm is not finite')
    wrist, index, middle = palm
    z = _unit(middle - wrist)
    across = (index - middle) - z * ((index - middle) @ z)
    y = _unit(across if side == 'right' else -across)
    return np.stack([np.cross(y, z), y, z], axis=1)


def retargeting_keypoints(keypoints_3d: np.ndarray, side: Side) -> np.ndarray:
    """Keypoints (21,3) float64 metres from the wrist, in the axes of :func:`retargeting_axes`.

    :param keypoints_3d: (21,3) metres, e.g. ``Hand.keypoints_3d``.
    :raises FrameError: see :func:`retargeting_axes`.
    """
    points = np.asarray(keypoints_3d, np.float64)
    axes = retargeting_axes(points, side)
    return (points - points[_WRIST]) @ axes


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if length < _LEAST_M:
        raise FrameError('wrist, index and middle finger of a hand are on one line')
    return vector / length
