"""Named hand shapes put together finger by finger, so that each finger's states can be mixed freely."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.datasets.gestures import GESTURES

#: Degrees, as in ``gestures``: flexion of the three joints; for the thumb also lift and twist of its root.
_FINGER_STATES: dict[str, tuple[float, float, float]] = {
    'straight': (0, 4, 2),
    'back': (-15, 0, -2),
    'soft': (20, 28, 14),
    'curved': (38, 42, 24),
    'hook': (5, 90, 58),
    'flat': (72, 6, 4),
    'tabletop': (82, 20, 10),
    'half': (55, 60, 35),
    'fist': (78, 94, 56),
}
_THUMB_STATES: dict[str, tuple[float, float, float, float, float]] = {
    'open': GESTURES['open']['thumb'],  # type: ignore[dict-item]
    'out': (-12, 0, -6, 4, 0),
    'up': (-20, -5, -12, -6, 10),
    'relaxed': GESTURES['relaxed']['thumb'],  # type: ignore[dict-item]
    'opposed': (12, 10, -9, 38, -32),
    'across': (32, 20, 32, 38, -45),
    'over_fist': GESTURES['fist']['thumb'],  # type: ignore[dict-item]
    'grasp': (0, 14, 18, 42, -20),
    'beside': (10, 4, 8, -4, -10),
}
FINGER_STATES = tuple(_FINGER_STATES)
THUMB_STATES = tuple(_THUMB_STATES)

#: Thumb, index, middle, ring, pinky. The comments name the signs after which some are shaped.
SHAPES: dict[str, tuple[str, str, str, str, str]] = {
    'flat hand': ('beside', 'straight', 'straight', 'straight', 'straight'),  # ASL B, nearly
    'splayed': ('out', 'back', 'back', 'back', 'back'),
    'rest': ('relaxed', 'soft', 'soft', 'soft', 'soft'),
    'fist': ('over_fist', 'fist', 'fist', 'fist', 'fist'),  # ASL S
    'fist, thumb beside': ('beside', 'fist', 'fist', 'fist', 'fist'),  # ASL A
    'fist, thumb in': ('across', 'half', 'fist', 'fist', 'fist'),
    'thumbs up': ('up', 'fist', 'fist', 'fist', 'fist'),
    'point': ('across', 'straight', 'fist', 'fist', 'fist'),  # one, ASL D
    'gun': ('up', 'straight', 'fist', 'fist', 'fist'),  # ASL L
    'two': ('across', 'straight', 'straight', 'fist', 'fist'),
    'three': ('across', 'straight', 'straight', 'straight', 'fist'),  # ASL W
    'three with thumb': ('out', 'straight', 'straight', 'fist', 'fist'),
    'four': ('across', 'straight', 'straight', 'straight', 'straight'),
    'six': ('up', 'fist', 'fist', 'fist', 'straight'),  # ASL Y
    'pinky': ('across', 'fist', 'fist', 'fist', 'straight'),  # ASL I
    'horns': ('across', 'straight', 'fist', 'fist', 'straight'),
    'pinch': ('opposed', 'half', 'soft', 'soft', 'soft'),
    'pinch, others closed': ('opposed', 'half', 'fist', 'fist', 'fist'),
    'ring sign': ('opposed', 'half', 'straight', 'straight', 'straight'),  # ASL F
    'tripod': ('opposed', 'half', 'half', 'fist', 'fist'),
    'power grasp': ('grasp', 'half', 'half', 'half', 'half'),
    'wide grasp': ('grasp', 'curved', 'curved', 'curved', 'curved'),  # ASL C
    'hook grasp': ('relaxed', 'hook', 'hook', 'hook', 'hook'),
    'claw': ('out', 'hook', 'hook', 'hook', 'hook'),
    'flat fingers': ('beside', 'flat', 'flat', 'flat', 'flat'),
    'beak': ('opposed', 'tabletop', 'tabletop', 'tabletop', 'tabletop'),  # ASL O
    'trigger': ('relaxed', 'hook', 'fist', 'fist', 'fist'),  # ASL X
    'middle down': ('relaxed', 'straight', 'tabletop', 'straight', 'straight'),
}


def state_angles(state: int) -> np.ndarray:
    """Joint angles (5,5) float64 in radians, as in ``gestures``, with every finger in its state number
    ``state``: the fingers' and the thumb's lists are equally long."""
    angles = np.zeros((5, 5))
    angles[:4, :3] = _FINGER_STATES[FINGER_STATES[state]]
    angles[4] = _THUMB_STATES[THUMB_STATES[state]]
    return np.radians(angles)


def shape_states() -> np.ndarray:
    """State numbers (shapes,5) of ``SHAPES``: thumb, index, middle, ring, pinky."""
    return np.array(
        [
            [THUMB_STATES.index(thumb), *(FINGER_STATES.index(state) for state in fingers)]
            for thumb, *fingers in SHAPES.values()
        ]
    )
