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

    def keypoints(self, image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Look at the next frame (H,W,3) uint8 RGB of the stream.

        Of each hand its world landmarks (21,3), metres about the palm, in axes aligned to the camera's, and
        its landmarks (21,2) in pixels.
        """
        seen, (height, width) = self._hands.process(image), image.shape[:2]
        if seen.multi_hand_landmarks is None:
            return []
        return [
            (
                np.array([(point.x, point.y, point.z) for point in world.landmark]),
                # The picture's left edge is 0, where our pixels' middles are whole numbers.
                np.array([(point.x * width - 0.5, point.y * height - 0.5) for point in flat.landmark]),
            )
            for world, flat in zip(seen.multi_hand_world_landmarks, seen.multi_hand_landmarks, strict=True)
        ]

    def close(self) -> None:
        """It cannot be used after."""
        self._hands.close()
