"""HandMeshEstimator: what cameras saw in, hands out. It wires the stages and owns no mathematics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection, Detector, HandBox
from hand_mesh_ros.detection.masks import hands_in_mask
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.image import checked_rgb
from hand_mesh_ros.inference.engine import BACKENDS, PRECISIONS, EngineSettings
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction import MASK_METHODS, METHODS, REFINEMENTS, make_reconstructor
from hand_mesh_ros.reconstruction.maskhand import MaskHandReconstructor
from hand_mesh_ros.reconstruction.surface import SurfaceFit
from hand_mesh_ros.segmentation import MaskSettings, hand_masks
from hand_mesh_ros.stage_clock import StageClock
from hand_mesh_ros.tracking.smoothing import HandSmoother
from hand_mesh_ros.tracking.tracker import DETECT_EVERY, HandTracker

#: Seconds between the frames of a stream whose stamps are not given.
_FRAME_S = 1.0 / 30.0

#: After a longer time than this, seconds, a hand need not be where it was: the detector looks for it.
_FOLLOWED_S = 0.25


@dataclass(frozen=True)
class Estimate:
    """What was seen in one frame."""

    hands: tuple[Hand, ...]  #: by falling score; with boxes, in the order of the boxes
    unresolved: tuple[Detection, ...]  #: detections that gave no hand, e.g. a box without landmarks
    #: milliseconds by stage: detect, reconstruct, total; within detect, where hands were looked for in depth,
    #: segment; within reconstruct, of all hands together: where the method is a network's, crop, network and
    #: place (from what the network says to a hand in the camera's frame); where there was depth, surface:
    #: laying hands onto it
    timing_ms: dict[str, float]
    #: whether hands were looked for all over the frame, or in boxes; False where it was enough to find those
    #: of the frame before again
    detected: bool = True


@dataclass(eq=False)
class _Found:
    """What was seen in one frame, before hands are laid onto depth."""

    hands: list[tuple[Detection, Hand]] = field(default_factory=list)
    unresolved: list[Detection] = field(default_factory=list)
    detected: bool = True

    def add(self, detections: Sequence[Detection], hands: Sequence[Hand | None]) -> _Found:
        """With what became of ``detections``."""
        for detection, hand in zip(detections, hands, strict=True):
            if hand is None:
                self.unresolved.append(detection)
            else:
                self.hands.append((detection, hand))
        return self


class HandMeshEstimator:
    """Reconstructs every hand in an image, a mask or a depth image as a mesh.

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
        backend: str = BACKENDS[0],
        precision: str = PRECISIONS[0],
        build_engines: bool = True,
        threads: int = 0,
        max_hands: int = 2,
        min_score: float = 0.5,
        streaming: bool = False,
        detect_every: int = DETECT_EVERY,
        smoothing: bool = False,
        hand_length_m: float | None = None,
        side: Side = 'right',
        refinement: str = REFINEMENTS[0],
        refinement_weights: Path | str | None = None,
        detector: Detector | None = None,
    ) -> None:
        """Load the hand model, the detector and the method.

        :param method: one of ``reconstruction.METHODS``: ``maskhand`` or ``fit`` for images; ``mask2hand``
            for masks and depth images.
        :param hand_model: a MANO .pkl or .npz of yours; None for the open model of the package.
        :param weights: of ``maskhand`` or ``mask2hand``, a file that ``hand-mesh train`` wrote; None for that
            of the package.
        :param sampling_steps: of ``maskhand``, iterations of the sampling of a pose, 1 to 16.
        :param backend: what runs the networks, one of ``inference.engine.BACKENDS``: ``tensorrt``,
            ``onnxruntime``, ``torch``; ``auto`` takes the first of these that works.
        :param precision: of TensorRT's engines, ``fp16`` or ``fp32``.
        :param build_engines: let TensorRT build an engine where it has none yet, which takes minutes.
        :param threads: of the networks on the CPU; 0 for one each core.
        :param max_hands: the most hands to look for in one frame.
        :param min_score: how sure the detector must be that it sees a hand, 0..1; the score of the
            reconstruction, ``Hand.score``, may be lower. Not of ``mask2hand``.
        :param streaming: the frames are those of one stream, and hands get a ``track_id``, unless boxes are
            given; False for unrelated images, which are searched more thoroughly.
        :param detect_every: of ``maskhand`` with ``streaming``: while hands are followed, others are looked
            for in each frame of so many; where ``max_hands`` are followed, more rarely.
        :param smoothing: with ``streaming``: smooth the hands over time, see ``tracking.smoothing``. It can
            be changed between frames, as ``estimator.smoothing``.
        :param hand_length_m: length of the hands to expect, crease of the wrist to tip of the middle finger,
            flat; None for the model's mean hand.
        :param side: of ``mask2hand``: of hands of which no box says the side; a mask does not tell.
        :param refinement: of ``mask2hand``, one of ``reconstruction.REFINEMENTS``: what is done to a hand
            that does not quite fill its mask. Not where there is depth, onto which hands are laid.
        :param refinement_weights: of its ``vertices``, a file that ``hand-mesh train
            mask2hand-refinement`` wrote; None for that of the package.
        :param detector: instead of MediaPipe Hands; ``mask2hand`` has no use for one.
        :raises ConfigurationError: a setting that cannot work, or a method whose requirements are missing.
        :raises FileFormatError: a file of a hand model or of weights that is none.
        """
        if side not in ('left', 'right'):
            raise ConfigurationError(f"side must be 'left' or 'right', got {side!r}")
        if detect_every < 1:
            raise ConfigurationError(f'detect_every must be at least 1, got {detect_every}')
        if smoothing and not streaming:
            raise ConfigurationError('smoothing needs a stream: set streaming too')
        engine = EngineSettings(backend, precision, build_engines, threads)
        path = None if hand_model is None else Path(hand_model)
        self.models: dict[Side, HandModel] = {
            'right': load_hand_model(path, 'right'),
            'left': load_hand_model(path, 'left'),
        }
        self.faces: dict[Side, np.ndarray] = {name: model.faces for name, model in self.models.items()}
        self.method = method
        self.refinement = refinement if method in MASK_METHODS else 'none'
        self._reconstructor = make_reconstructor(
            method,
            self.models,
            hand_length_m,
            weights=None if weights is None else Path(weights),
            sampling_steps=sampling_steps,
            engine=engine,
            streaming=streaming,
            refinement=refinement,
            refinement_weights=None if refinement_weights is None else Path(refinement_weights),
        )
        self.backend = self._reconstructor.backend
        self.weights_hash = self._reconstructor.weights_hash
        self._side, self._max_hands = side, max_hands
        self._mask_settings = MaskSettings(max_hands=max_hands)
        self._surfaces: dict[Side, SurfaceFit] = {}
        self._tracker = HandTracker(max_hands, detect_every) if streaming else None
        self.smoothing = smoothing
        self._smoother = HandSmoother(self.models)
        self._stamp_s = 0.0
        reconstructor = self._reconstructor
        self._follows = (
            streaming and isinstance(reconstructor, MaskHandReconstructor) and reconstructor.follows
        )
        self._detector = detector
        if detector is None and method not in MASK_METHODS:
            self._detector = MediaPipeDetector(max_hands=max_hands, min_score=min_score, streaming=streaming)

    def estimate(
        self,
        image: np.ndarray | None,
        camera: Camera | None = None,
        boxes: Sequence[HandBox] | None = None,
        *,
        mask: np.ndarray | None = None,
        depth_m: np.ndarray | None = None,
        stamp_s: float | None = None,
    ) -> Estimate:
        """Hands in what one or more cameras saw at a moment, pixel on pixel.

        ``maskhand`` and ``fit`` look for hands in the image. ``mask2hand`` takes each blob of the mask for a
        hand; without a mask it looks for hands in the depth image. Where there is a depth image, hands of
        every method are laid onto it, and their ``scale_source`` becomes DEPTH; a mask then says what of it
        is hands.

        :param image: (H,W,3) uint8 RGB; None where the method needs none.
        :param camera: the camera that took it; None guesses one, and positions are then not metric.
        :param boxes: look for hands there only, and take their sides from them.
        :param mask: (H,W) bool or uint8, not 0 where hands are.
        :param depth_m: (H,W) float, metres along the optical axis; 0, negative or not finite where nothing
            was measured. It needs a camera whose intrinsics are known.
        :param stamp_s: when that was, in seconds, for ``smoothing``, and to follow hands over no longer than
            a quarter of a second; None for 1/30 s after the frame before.
        :raises FrameError: input that is none or not of the camera's size, or lacks what the method needs.
        """
        start = time.perf_counter()
        seen = self._observed(image, camera, mask, depth_m)
        clock = StageClock('detect', 'reconstruct', *(['surface'] if depth_m is not None else []))
        stamp_s = self._stamp_s + _FRAME_S if stamp_s is None else stamp_s
        since_s, self._stamp_s = stamp_s - self._stamp_s, stamp_s if np.isfinite(stamp_s) else self._stamp_s
        if self._tracker is None or boxes is not None:
            found = self._each_alone(seen, boxes, clock)
        elif self._follows and abs(since_s) <= _FOLLOWED_S:
            found = self._followed(seen, self._tracker, clock)
        else:
            found = self._recognised(seen, self._tracker, clock)
        hands = [hand for _, hand in found.hands]
        if depth_m is not None:
            with clock('reconstruct'), clock('surface'):
                hands = [self._on_surface(hand, detection, seen) for detection, hand in found.hands]
        if self.smoothing:
            hands = [self._smoother.smoothed(hand, seen.camera, stamp_s) for hand in hands]
        if boxes is None:
            hands.sort(key=lambda hand: -hand.score)
        timing_ms = {**clock.ms, 'total': 1e3 * (time.perf_counter() - start)}
        return Estimate(tuple(hands), tuple(found.unresolved), timing_ms, found.detected)

    def _each_alone(self, seen: Observation, boxes: Sequence[HandBox] | None, clock: StageClock) -> _Found:
        """The hands of a frame that has nothing to do with those before."""
        if self._tracker is not None:
            self._tracker.forget()
        detections = self._detections(seen, boxes, clock)
        return _Found().add(detections, self._reconstructed(seen, detections, clock))

    def _recognised(self, seen: Observation, tracker: HandTracker, clock: StageClock) -> _Found:
        """The hands of a frame, looked for without regard to those before, and which of these they are."""
        tracker.begin_frame(seen.camera.width, seen.camera.height)
        found = _Found()
        self._assign(self._detections(seen, None, clock), found, seen, tracker, clock)
        found.hands = tracker.hands()
        return found

    def _followed(self, seen: Observation, tracker: HandTracker, clock: StageClock) -> _Found:
        """The hands of a frame, looked for where they were in the one before, and new ones now and then."""
        tracker.begin_frame(seen.camera.width, seen.camera.height)
        where = tracker.followed()
        tracker.saw_followed(where, self._reconstructed(seen, where, clock))
        found = _Found(detected=tracker.detector_due)
        if found.detected:
            assert self._detector is not None and seen.image is not None
            with clock('detect'):
                detections = self._detector.detect(seen.image, known_px=tracker.known_px())
            self._assign(detections, found, seen, tracker, clock)
        found.hands = tracker.hands()
        return found

    def _assign(
        self,
        detections: Sequence[Detection],
        found: _Found,
        seen: Observation,
        tracker: HandTracker,
        clock: StageClock,
    ) -> None:
        """Reconstruct what of ``detections`` the tracker does not know."""
        wanted = tracker.assigned(detections)
        of = [each.detection for each in wanted]
        if not of and not tracker.hands():
            self._reconstructor.forget()
        hands = self._reconstructed(seen, of, clock)
        tracker.saw_assigned(wanted, hands)
        found.unresolved += [detection for detection, hand in zip(of, hands, strict=True) if hand is None]

    def _reconstructed(
        self, seen: Observation, detections: Sequence[Detection], clock: StageClock
    ) -> list[Hand | None]:
        with clock('reconstruct'):
            hands = self._reconstructor.reconstruct(seen, detections)
        clock.add(self._reconstructor.timing_ms)
        return hands

    def _observed(
        self,
        image: np.ndarray | None,
        camera: Camera | None,
        mask: np.ndarray | None,
        depth_m: np.ndarray | None,
    ) -> Observation:
        if self.method in MASK_METHODS and mask is None and depth_m is None:
            raise FrameError(f'method {self.method} needs a mask or a depth image')
        if self.method not in MASK_METHODS and image is None:
            raise FrameError(f'method {self.method} needs an image')
        if depth_m is not None and (camera is None or not camera.calibrated):
            raise FrameError('depth needs a camera whose intrinsics are known')
        image = None if image is None else checked_rgb(image)
        if camera is None:
            of_size = image if image is not None else mask
            assert of_size is not None  # else there is depth, which comes with a camera
            if of_size.ndim < 2 or not of_size.size:
                raise FrameError(f'a mask is (H,W), got shape {of_size.shape}')
            camera = Camera.from_fov(of_size.shape[1], of_size.shape[0])
        return Observation(camera, image, mask, depth_m)

    def _detections(
        self, seen: Observation, boxes: Sequence[HandBox] | None, clock: StageClock
    ) -> Sequence[Detection]:
        with clock('detect'):
            if self.method not in MASK_METHODS:
                assert self._detector is not None and seen.image is not None
                return self._detector.detect(seen.image, boxes)
            mask = seen.mask
            if mask is None:
                assert seen.depth_m is not None
                with clock('segment'):
                    found = hand_masks(seen.depth_m, seen.camera, self._mask_settings, boxes)
                mask = found.mask
                if boxes is None:  # hands that touch in the mask are two where depth tells them apart
                    boxes = [HandBox(self._side, region.bbox_px) for region in found.regions]
            return hands_in_mask(mask, boxes, self._side, self._max_hands)

    def _on_surface(self, hand: Hand, detection: Detection, seen: Observation) -> Hand:
        """The hand where its depth was measured; as it was where the depth says nothing of it."""
        if hand.side not in self._surfaces:
            self._surfaces[hand.side] = SurfaceFit(self.models[hand.side])
        mask = detection.mask
        if mask is None and seen.mask is not None:
            (of_hand,) = hands_in_mask(seen.mask, [HandBox(hand.side, hand.bbox_px)])
            mask = of_hand.mask
        assert seen.depth_m is not None
        try:
            fitted = self._surfaces[hand.side].fitted(hand, seen.depth_m, mask, seen.camera)
        except FrameError:
            fitted = None
        return fitted or hand

    def forget(self) -> None:
        """What comes next is no continuation: hands that were followed from frame to frame are forgotten."""
        if self._tracker is not None:
            self._tracker.forget()
        self._smoother.forget()
        self._reconstructor.forget()

    def close(self) -> None:
        """Release detector and networks; the estimator cannot be used after."""
        self._reconstructor.close()
        if self._detector is not None:
            self._detector.close()

    def __enter__(self) -> HandMeshEstimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
