"""The learned method for silhouettes: of the hands that a mask may be of, the one that fits it best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import CropView
from hand_mesh_ros.detection.detection import Detection, box_iou
from hand_mesh_ros.errors import ConfigurationError
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
        self.timing_ms = {'network': 0.0, 'outline': 0.0} if refine else {'network': 0.0}
        if refinement is not None:
            _require_fitting(refinement, network, models['right'])
            self.timing_ms['refinement'] = 0.0
        self._models, self._network, self._refinement = models, network, refinement
        self._length_given = hand_length_m is not None
        self._shape = LearnedShape(models['right'], network.hand_model_hash, hand_length_m)
        self._history = _History() if streaming else None

    def forget(self) -> None:
        """See :class:`Reconstructor`."""
        if self._history is not None:
            self._history = _History()

    def reconstruct(self, observation: Observation, detection: Detection) -> Hand | None:
        """See :class:`Reconstructor`. Raises FrameError for a mask that no hand can have.

        None for a detection without a mask, and where no hand looks like it. ``timing_ms`` then holds
        ``network``, from the crop to the vertices, and ``outline`` and ``refinement`` where these are done.
        """
        if detection.mask is None:
            return None
        camera, side = observation.camera, detection.side
        view = view_of_mask(detection.mask, camera, self._network.image_size)
        pixels = detection.mask.astype(np.uint8) * 255
        crop = crop_image(pixels, camera, view, border=cv2.BORDER_CONSTANT)
        start = time.perf_counter()
        candidates = [self._candidate(told, crop, view, side) for told in self._infer(crop, view, side)]
        before = None if self._history is None else self._history.before(observation, detection)
        best = self._best(candidates, view, before)
        hand = self._placed(best, view, camera, detection) if best.overlap >= _LEAST_OVERLAP else None
        self.timing_ms |= {'network': 1e3 * (time.perf_counter() - start)}
        if hand is not None and self._surfaces:
            start = time.perf_counter()
            if observation.depth_m is None:
                hand = self._surfaces[side].outlined(hand, detection.mask, camera)
            self.timing_ms |= {'outline': 1e3 * (time.perf_counter() - start)}
        if hand is not None and self._history is not None:
            self._history.add(hand)
        if hand is not None and self._refinement is not None:
            start = time.perf_counter()
            if observation.depth_m is None:
                hand = replace(hand, vertices=self._refined(hand, crop, view))
            self.timing_ms |= {'refinement': 1e3 * (time.perf_counter() - start)}
        return hand

    def _refined(self, hand: Hand, crop: np.ndarray, view: CropView) -> np.ndarray:
        """Vertices (V,3) float32 of the hand as they fit the crop of its mask better."""
        assert self._refinement is not None
        vertices, half_side = hand.vertices @ view.R_crop_camera.T, view.focal_px * 2.0 / view.size
        faces = self._models[hand.side].faces
        if hand.side == 'right':
            refined = self._refinement.refined(crop, half_side, vertices, faces)
        else:
            mirrored = self._refinement.refined(crop[:, ::-1], half_side, mirrored_points(vertices), faces)
            refined = mirrored_points(mirrored)
        return (refined @ view.R_crop_camera).astype(np.float32)

    def _infer(self, crop: np.ndarray, view: CropView, side: Side) -> Sequence[SilhouetteHand]:
        """What the network says, as hands of ``side`` in the crop as it was taken."""
        half_side = view.focal_px * 2.0 / view.size
        if side == 'right':
            return self._network.infer(crop, half_side)
        return [_mirrored(hand) for hand in self._network.infer(crop[:, ::-1], half_side)]

    def _candidate(self, told: SilhouetteHand, crop: np.ndarray, view: CropView, side: Side) -> _Candidate:
        model, betas = self._models[side], self._shape.betas(told.betas)
        # A hand that is twice as long looks the same from twice as far
        wrist = told.wrist * self._shape.enlargement(told.betas)
        posed = model.posed(told.global_orient, told.hand_pose, betas, np.zeros(3))
        moved = wrist - posed.keypoints[0]
        overlap = silhouette_overlap(posed.vertices + moved, model.faces, view.camera(), crop > 127)
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
        self._looking_at: Observation | None = None
        self._before: list[Hand] = []
        self._now: list[Hand] = []

    def before(self, observation: Observation, detection: Detection) -> Hand | None:
        """The hand of the frame before that ``detection`` is most likely of; None if there is none."""
        if observation is not self._looking_at:
            self._looking_at, self._before, self._now = observation, self._now, []
        shared = [(box_iou(hand.bbox_px, detection.bbox_px), hand) for hand in self._before]
        shared = [pair for pair in shared if pair[0] >= _SAME_HAND and pair[1].side == detection.side]
        return max(shared, key=lambda pair: pair[0])[1] if shared else None

    def add(self, hand: Hand) -> None:
        """A hand of the observation that ``before`` was asked about last."""
        self._now.append(hand)


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
