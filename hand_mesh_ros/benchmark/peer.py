"""MediaPipe Hands by itself, as the peer."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.detection.mediapipe_networks import stderr_dropped


class MediaPipeHands:
    """``mediapipe.solutions.hands`` as its users run it on a stream: it follows hands by itself."""

    def __init__(self, max_hands: int = 1) -> None:
        """Load it, its start-up messages kept off stderr."""
        with stderr_dropped():
            from mediapipe.python.solutions.hands import Hands

            self._hands = Hands(static_image_mode=False, max_num_hands=max_hands, model_complexity=1)
            self._hands.process(np.zeros((480, 640, 3), np.uint8))

    def sees_hands(self, image: np.ndarray) -> bool:
        """Look at the next frame (H,W,3) uint8 RGB of the stream."""
        return self._hands.process(image).multi_hand_landmarks is not None

    def close(self) -> None:
        """It cannot be used after."""
        self._hands.close()
