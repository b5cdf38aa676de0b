"""HandMeshEstimator: image and camera in, hands out. It wires the stages and owns no mathematics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection, Detector, HandBox
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.image import checked_rgb
from hand_mesh_ros.reconstruction import METHODS, make_reconstructor


@dataclass(frozen=True)
class Estimate:
    """What was seen in one image."""

    hands: tuple[Hand, ...]  #: by falling score; with boxes, in the order of the boxes
    unresolved: tuple[Detection, ...]  #: detections that gave no hand, e.g. a box without landmarks
    timing_ms: dict[str, float]  #: milliseconds by stage: detect, reconstruct, total


class HandMeshEstimator:
    """Reconstructs every hand in an image as a mesh.

    >>> with HandMeshEstimator() as estimator:
    ...     estimate = estimator.estimate(image_rgb, Camera(640, 480, 600.0, 600.0, 319.5, 239.5))
    ...     for hand in estimate.hands:
    ...         print(hand.side, hand.keypoints_3d[0])

    Not thread-safe, and with ``streaming`` it remembers the frame before: one estimator a stream.
    """

    def __init__(
        self,
        method: str = METHODS[0],
        *,
        hand_model: Path | str | None = None,
        max_hands: int = 2,
        min_score: float = 0.5,
        streaming: bool = False,
        hand_length_m: float | None = None,
        detector: Detector | None = None,
    ) -> None:
        """Load the hand model and the detector.

        :param method: one of ``reconstruction.METHODS``.
        :param hand_model: a MANO .pkl or .npz of yours; None for the open model of the package.
        :param max_hands: the most hands to look for in one image.
        :param min_score: how sure the detector must be that it sees a hand, 0..1; the score of the
            reconstruction, ``Hand.score``, may be lower.
        :param streaming: the images are frames of one stream; False for unrelated images, which are
            searched more thoroughly.
        :param hand_length_m: length of the hands to expect, crease of the wrist to tip of the middle finger,
            flat; None for the model's mean hand.
        :param detector: instead of MediaPipe Hands.
        :raises ConfigurationError: a setting that cannot work.
        :raises FileFormatError: a hand model file that is none.
        """
        path = None if hand_model is None else Path(hand_model)
        self.models: dict[Side, HandModel] = {
            'right': load_hand_model(path, 'right'),
            'left': load_hand_model(path, 'left'),
        }
        self.faces: dict[Side, np.ndarray] = {side: model.faces for side, model in self.models.items()}
        self._reconstructor = make_reconstructor(method, self.models, hand_length_m)
        self._detector = detector or MediaPipeDetector(
            max_hands=max_hands, min_score=min_score, streaming=streaming
        )

    def estimate(
        self, image: np.ndarray, camera: Camera | None = None, boxes: Sequence[HandBox] | None = None
    ) -> Estimate:
        """Hands in ``image`` (H,W,3) uint8 RGB.

        :param camera: the camera that took it; None guesses one, and positions are then not metric.
        :param boxes: look for hands there only, and take their sides from them.
        :raises FrameError: an image that is none, or not of the camera's size.
        """
        start = time.perf_counter()
        image = checked_rgb(image)
        height, width = image.shape[:2]
        if camera is None:
            camera = Camera.from_fov(width, height)
        elif (camera.width, camera.height) != (width, height):
            raise FrameError(f'image is {width}x{height}, its camera {camera.width}x{camera.height}')
        detections = self._detector.detect(image, boxes)
        detected = time.perf_counter()
        hands, unresolved = [], []
        for detection in detections:
            try:
                hand = self._reconstructor.reconstruct(image, camera, detection)
            except FrameError:  # landmarks that no hand can have: the other hands still count
                hand = None
            if hand is None:
                unresolved.append(detection)
            else:
                hands.append(hand)
        if boxes is None:
            hands.sort(key=lambda hand: -hand.score)
        end = time.perf_counter()
        timing_ms = {
            'detect': 1e3 * (detected - start),
            'reconstruct': 1e3 * (end - detected),
            'total': 1e3 * (end - start),
        }
        return Estimate(tuple(hands), tuple(unresolved), timing_ms)

    def close(self) -> None:
        """Release the detector; the estimator cannot be used after."""
        self._detector.close()

    def __enter__(self) -> HandMeshEstimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
