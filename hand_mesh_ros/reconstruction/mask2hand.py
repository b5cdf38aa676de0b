"""The learned method for silhouettes: of the hands that a mask may be of, the one that fits it best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import CropView
from hand_mesh_ros.detection.detection import Detection, box_iou
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.inference.network import SilhouetteHand, SilhouetteNetwork, SilhouetteRefinement
from hand_mesh_ros.mask_view import view_of_mask
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.placement import scale_source
from hand_mesh_ros.reconstruction.assembly import assemble_hand
from hand_mesh_ros.reconstruction.learned_shape import LearnedShape
from hand_mesh_ros.reconstruction.surface import SurfaceFit
from hand_mesh_ros.rendering.masks import silhouette_overlap
from hand_mesh_ros.stage_clock import StageClock

#: What a hand is worth by how much of its silhouette and the mask's they share, and what it loses by having
#: changed since the frame before, in hand lengths that its keypoints moved against the wrist, on average.
#: The logarithm of the network's own probability counts once.
_OVERLAP_WORTH, _CHANGE_WORTH = 10.0, 6.0

#: A silhouette that shares less than this with that of the best hand, as a share of both, is no hand's.
_LEAST_OVERLAP = 0.3

#: Boxes of one hand in two frames share at least this much of both.
_SAME_HAND = 0.2


def worth(probability: np.ndarray, overlap: np.ndarray, change: np.ndarray | None = None) -> np.ndarray:
    """How good K hands are as the hand of one mask, the best having the greatest number: (K,).

    :param probability: (K,) that the network gives each, 0..1.
    :param overlap: (K,) intersection over union of each hand's silhouette and the mask, 0..1.
    :param change: (K,) mean distance of each hand's keypoints from where they were in the frame before, all
        against the wrist, in hand lengths; None where there was no such hand.
    """
    value = np.log(np.maximum(probability, 1e-6)) + _OVERLAP_WORTH * overlap
    return value if change is None else value - _CHANGE_WORTH * change


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A hand in the camera of the crop, of the shape that is asked for."""

    told: SilhouetteHand
    betas: np.ndarray
    wrist: np.ndarray  # (3,) metres
    overlap: float
    pose: np.ndarray  # (21,3) metres, keypoints against the wrist


@dataclass(frozen=True, eq=False)
class _Shown:
    """A mask as the network sees it: as of a right hand."""

    detection: Detection
    view: CropView  # of the hand as it is
    crop: np.ndarray  # (S,S) uint8

    @property
    def half_side(self) -> float:
        """Focal length of the crop's camera over half the crop's side."""
        return self.view.focal_px * 2.0 / self.view.size


class Mask2HandReconstructor:
    """A network tells hands that a mask may be of; silhouette, and the frame before, choose among them.

    The network knows right hands only: the crop of a left one is mirrored, and mirrored back is what the
    network told.
    """

    def __init__(
        self,
        models: dict[Side, HandModel],
        network: SilhouetteNetwork,
        hand_length_m: float | None = None,
        streaming: bool = False,
        refine: bool = False,
        refinement: SilhouetteRefinement | None = None,
    ) -> None:
        """Prepare.

        :param hand_length_m: wrist to tip of the middle finger, hand flat; None for the model's mean hand.
        :param streaming: what is looked at are frames of one stream: hands do not change at a stroke.
        :param refine: bend the hand a little, so that it fills its mask; not where there is depth, onto which
            it will be laid.
        :param refinement: moves the vertices, and nothing else, after all that: of such a hand no parameters
            give the vertices, and its keypoints and frames, tips too, stay those of the parameters. Not where
            there is depth.
        :raises ConfigurationError: the model cannot take that length, or is not what ``refinement`` learned.
        """
        self.backend, self.weights_hash = network.backend, network.weights_hash
        self._surfaces = {side: SurfaceFit(model) for side, model in models.items()} if refine else {}
        if refinement is not None:
            _require_fitting(refinement, network, models['right'])
        extra = [*(['outline'] if refine else []), *(['refinement'] if refinement is not None else [])]
        self._stages = ['crop', 'network', 'place', *extra]
        self.timing_ms = StageClock(*self._stages).ms
        self._models, self._network, self._refinement = models, network, refinement
        self._length_given = hand_length_m is not None
        self._shape = LearnedShape(models['right'], network.hand_model_hash, hand_length_m)
        self._history = _History() if streaming else None

    def forget(self) -> None:
        """See :class:`Reconstructor`."""
        if self._history is not None:
            self._history = _History()

    def reconstruct(self, observation: Observation, detections: Sequence[Detection]) -> list[Hand | None]:
        """See :class:`Reconstructor`. Nothing can be said of a detection without a mask, of a mask that no
        hand can have, and where no hand looks like it. The network sees all masks at once.

        ``timing_ms`` then holds ``crop``; ``network``, from crops to what the network says; ``place``; and
        ``outline`` and ``refinement`` where these are done.
        """
        clock = StageClock(*self._stages)
        with clock('crop'):
            shown = [self._shown(observation, detection) for detection in detections]
        known = [mask for mask in shown if mask is not None]
        told: Iterator[Sequence[SilhouetteHand]] = iter(())
        if known:
            with clock('network'):
                half_sides = np.array([mask.half_side for mask in known])
                told = iter(self._network.infer(np.stack([mask.crop for mask in known]), half_sides))
        before = self._history.turn() if self._history is not None else ()
        hands = [
            None if mask is None else self._hand(next(told), mask, observation, before, clock)
            for mask in shown
        ]
        self.timing_ms = clock.ms
        return hands

    def close(self) -> None:
        """See :class:`Reconstructor`."""
        self._network.close()
        if self._refinement is not None:
            self._refinement.close()

    def _shown(self, observation: Observation, detection: Detection) -> _Shown | None:
        """The mask as the network is to see it."""
        if detection.mask is None:
            return None
        camera = observation.camera
        try:
            view = view_of_mask(detection.mask, camera, self._network.image_size)
        except FrameError:
            return None
        pixels = detection.mask.astype(np.uint8) * 255
        crop = crop_image(pixels, camera, view, border=cv2.BORDER_CONSTANT)
        return _Shown(detection, view, crop[:, ::-1] if detection.side == 'left' else crop)

    def _hand(
        self,
        told: Sequence[SilhouetteHand],
        shown: _Shown,
        observation: Observation,
        before: Sequence[Hand],
        clock: StageClock,
    ) -> Hand | None:
        detection, view, camera = shown.detection, shown.view, observation.camera
        with clock('place'):
            if detection.side == 'left':
                told = [_mirrored(hand) for hand in told]
            candidates = [self._candidate(hand, shown) for hand in told]
            best = self._best(candidates, view, _same_hand(before, detection))
            if best.overlap < _LEAST_OVERLAP:
                return None
            hand = self._placed(best, view, camera, detection)
        if self._surfaces and observation.depth_m is None:
            assert detection.mask is not None
            with clock('outline'):
                hand = self._surfaces[detection.side].outlined(hand, detection.mask, camera)
        if self._history is not None:
            self._history.add(hand)
        if self._refinement is not None and observation.depth_m is None:
            with clock('refinement'):
                hand = replace(hand, vertices=self._refined(hand, shown))
        return hand

    def _refined(self, hand: Hand, shown: _Shown) -> np.ndarray:
        """Vertices (V,3) float32 of the hand as they fit the crop of its mask better."""
        assert self._refinement is not None
        R_crop_camera = shown.view.R_crop_camera
        vertices = hand.vertices @ R_crop_camera.T
        if hand.side == 'left':
            vertices = mirrored_points(vertices)
        # Of right hands, whose faces they are
        refined = self._refinement.refined(shown.crop, shown.half_side, vertices, self._models['right'].faces)
        if hand.side == 'left':
            refined = mirrored_points(refined)
        return (refined @ R_crop_camera).astype(np.float32)

    def _candidate(self, told: SilhouetteHand, shown: _Shown) -> _Candidate:
        model, betas = self._models[shown.detection.side], self._shape.betas(told.betas)
        # A hand that is twice as long looks the same from twice as far
        wrist = told.wrist * self._shape.enlargement(told.betas)
        posed = model.posed(told.global_orient, told.hand_pose, betas, np.zeros(3))
        moved = wrist - posed.keypoints[0]
        mask = shown.crop > 127
        if shown.detection.side == 'left':
            mask = mask[:, ::-1]
        overlap = silhouette_overlap(posed.vertices + moved, model.faces, shown.view.camera(), mask)
        return _Candidate(told, betas, wrist, overlap, posed.keypoints - posed.keypoints[0])

    def _best(self, candidates: Sequence[_Candidate], view: CropView, before: Hand | None) -> _Candidate:
        change = None
        if before is not None:
            then = (before.keypoints_3d - before.keypoints_3d[0]) @ view.R_crop_camera.T
            length = self._models[before.side].hand_length(before.betas)
            moved = np.stack([candidate.pose - then for candidate in candidates])
            change = np.linalg.norm(moved, axis=2).mean(1) / length
        probability = np.array([candidate.told.score for candidate in candidates])
        overlap = np.array([candidate.overlap for candidate in candidates])
        return candidates[int(np.argmax(worth(probability, overlap, change)))]

    def _placed(self, best: _Candidate, view: CropView, camera: Camera, detection: Detection) -> Hand:
        model = self._models[detection.side]
        to_camera = view.R_crop_camera.T
        orient = axis_angles(to_camera @ rotation_matrices(best.told.global_orient))
        unplaced = model.posed(orient, best.told.hand_pose, best.betas, np.zeros(3)).keypoints[0]
        return assemble_hand(
            model,
            camera,
            detection,
            global_orient=orient,
            hand_pose=best.told.hand_pose,
            betas=best.betas,
            transl=to_camera @ best.wrist - unplaced,
            confidence=best.told.confidence,
            scale=scale_source(camera, self._length_given),
        )


class _History:
    """The hands of the frame before."""

    def __init__(self) -> None:
        self._hands: list[Hand] = []

    def turn(self) -> Sequence[Hand]:
        """Begin a frame: the hands of the one before."""
        before, self._hands = self._hands, []
        return before

    def add(self, hand: Hand) -> None:
        """A hand of this frame."""
        self._hands.append(hand)


def _same_hand(before: Sequence[Hand], detection: Detection) -> Hand | None:
    """The hand of the frame before that ``detection`` is most likely of; None if there is none."""
    shared = [(box_iou(hand.bbox_px, detection.bbox_px), hand) for hand in before]
    shared = [pair for pair in shared if pair[0] >= _SAME_HAND and pair[1].side == detection.side]
    return max(shared, key=lambda pair: pair[0])[1] if shared else None


def _require_fitting(refinement: SilhouetteRefinement, network: SilhouetteNetwork, model: HandModel) -> None:
    if refinement.hand_model_hash != model.sha256:
        raise ConfigurationError(
            f'the refinement learned to move the vertices of another hand model than {model.name!r}: '
            'train it on that one (hand-mesh train mask2hand-refinement), or do without'
        )
    if refinement.image_size != network.image_size:
        raise ConfigurationError(
            f'the refinement takes masks of side {refinement.image_size}, the network {network.image_size}'
        )


def _mirrored(hand: SilhouetteHand) -> SilhouetteHand:
    return replace(
        hand,
        global_orient=mirrored_axis_angles(hand.global_orient),
        hand_pose=mirrored_axis_angles(hand.hand_pose),
        wrist=mirrored_points(hand.wrist),
    )
