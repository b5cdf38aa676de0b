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
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.reconstruction import METHODS, make_reconstructor


@dataclass(frozen=True)
class Estimate:
    """What was seen in one image."""

    hands: tuple[Hand, ...]  #: by falling score; with boxes, in the order of the boxes
    unresolved: tuple[Detection, ...]  #: detections that gave no hand, e.g. a box without landmarks
    #: milliseconds by stage: detect, reconstruct, total; within reconstruct, where the method is a network's,
    #: network: from the crops to the vertices, of all hands together
    timing_ms: dict[str, float]


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
        weights: Path | str | None = None,
        sampling_steps: int = DEFAULT_STEPS,
        threads: int = 0,
        max_hands: int = 2,
        min_score: float = 0.5,
        streaming: bool = False,
        hand_length_m: float | None = None,
        detector: Detector | None = None,
    ) -> None:
        """Load the hand model, the detector and the method.

        :param method: one of ``reconstruction.METHODS``: ``maskhand``, which needs PyTorch, or ``fit``.
        :param hand_model: a MANO .pkl or .npz of yours; None for the open model of the package.
        :param weights: of ``maskhand``, a file that ``hand-mesh train maskhand`` wrote; None for that of the
            package.
        :param sampling_steps: of ``maskhand``, iterations of the sampling of a pose, 1 to 16.
        :param threads: that PyTorch may use in the whole process; 0 for its default, all cores.
        :param max_hands: the most hands to look for in one image.
        :param min_score: how sure the detector must be that it sees a hand, 0..1; the score of the
            reconstruction, ``Hand.score``, may be lower.
        :param streaming: the images are frames of one stream; False for unrelated images, which are
            searched more thoroughly.
        :param hand_length_m: length of the hands to expect, crease of the wrist to tip of the middle finger,
            flat; None for the model's mean hand.
        :param detector: instead of MediaPipe Hands.
        :raises ConfigurationError: a setting that cannot work, or a method whose requirements are missing.
        :raises FileFormatError: a file of a hand model or of weights that is none.
        """
        path = None if hand_model is None else Path(hand_model)
        self.models: dict[Side, HandModel] = {
            'right': load_hand_model(path, 'right'),
            'left': load_hand_model(path, 'left'),
        }
        self.faces: dict[Side, np.ndarray] = {side: model.faces for side, model in self.models.items()}
        self.method = method
        self._reconstructor = make_reconstructor(
            method,
            self.models,
            hand_length_m,
            weights=None if weights is None else Path(weights),
            sampling_steps=sampling_steps,
            threads=threads,
        )
        self.backend = self._reconstructor.backend
        self.weights_hash = self._reconstructor.weights_hash
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
        parts_ms = dict.fromkeys(self._reconstructor.timing_ms, 0.0)
        for detection in detections:
            try:
                hand = self._reconstructor.reconstruct(image, camera, detection)
            except FrameError:  # landmarks that no hand can have: the other hands still count
                hand = None
            if hand is None:
                unresolved.append(detection)
            else:
                hands.append(hand)
                for part, ms in self._reconstructor.timing_ms.items():
                    parts_ms[part] += ms
        if boxes is None:
            hands.sort(key=lambda hand: -hand.score)
        end = time.perf_counter()
        timing_ms = {
            'detect': 1e3 * (detected - start),
            'reconstruct': 1e3 * (end - detected),
            'total': 1e3 * (end - start),
            **parts_ms,
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
