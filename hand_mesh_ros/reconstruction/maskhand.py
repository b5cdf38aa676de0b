"""The learned method: a network sees each hand in a crop of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import CropView, view_of_hand
from hand_mesh_ros.cues import Cues
from hand_mesh_ros.detection.cues import detected_cues, extent
from hand_mesh_ros.detection.detection import Detection, box_in_image
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.kinematics import KeypointKinematics
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.inference.network import HandNetwork, NetworkOutput
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.placement import place, scale_source
from hand_mesh_ros.reconstruction.adjustment import Adjuster
from hand_mesh_ros.reconstruction.assembly import assemble_hand
from hand_mesh_ros.reconstruction.learned_shape import LearnedShape
from hand_mesh_ros.stage_clock import StageClock

#: Pixels; keypoints closer together than this are no hand.
_SMALLEST_PX = 1.0

#: A crop shows a hand that was followed into it where the network is at least as sure of that. It is
#: MediaPipe's own threshold.
_LEAST_PRESENCE = 0.5

#: A hand that is followed is shown at least as small as one whose keypoints are spread by this share more
#: than those of its palm. Of a fist that fills its crop the network takes a part for the whole, and the next
#: crop is still smaller.
_LEAST_SPREAD = 1.1
_PALM = (0, 1, 5, 9, 13, 17)

#: Mirrors x, y of a crop in which x goes from -1 to 1.
_CROP_SIGNS = np.array([-1.0, 1.0])


_STAGES = ('crop', 'network', 'place')


@dataclass(frozen=True, eq=False)
class _Shown:
    """A hand as the network sees it: as a right one."""

    detection: Detection
    view: CropView  # of the hand as it is
    crop: np.ndarray  # (S,S,3) uint8 RGB
    cues: Cues


class MaskHandReconstructor:
    """Pose, proportions and confidences are the network's; detector and image together say where the hand is.

    The pose is then bent a little, that the mesh comes to lie where they say: see ``Adjuster``.

    The network knows right hands only: a left one is mirrored when its crop has been taken, and mirrored back
    when the network has seen it.
    """

    def __init__(
        self, models: dict[Side, HandModel], network: HandNetwork, hand_length_m: float | None = None
    ) -> None:
        """``hand_length_m``: wrist to tip of the middle finger, hand flat; None for the model's mean hand.

        Raises ConfigurationError when the model cannot take that length.
        """
        self.backend, self.weights_hash = network.backend, network.weights_hash
        #: Whether ``Detection.followed_px`` is enough: the network finds a hand in its crop by itself
        self.follows = network.finds_hands
        self.timing_ms = StageClock(*_STAGES).ms
        self._models, self._network = models, network
        self._kinematics = {side: KeypointKinematics(model) for side, model in models.items()}
        self._adjusters = {side: Adjuster(model) for side, model in models.items()}
        self._length_given = hand_length_m is not None
        self._shape = LearnedShape(models['right'], network.hand_model_hash, hand_length_m)

    def forget(self) -> None:
        """Nothing to do: each frame is looked at by itself."""

    def reconstruct(self, observation: Observation, detections: Sequence[Detection]) -> list[Hand | None]:
        """See :class:`Reconstructor`. Nothing can be said of hands with landmarks that no hand can have, nor
        without: which way is up, and so how the hand is turned, the network cannot tell well from a picture
        alone. A hand that is followed needs none: where it was tells that well enough, and the network looks
        for it there. It sees all hands at once.

        ``timing_ms`` then holds ``crop``; ``network``, from crops to vertices; and ``place``.
        """
        clock = StageClock(*_STAGES)
        with clock('crop'):
            shown = [self._shown(observation, detection) for detection in detections]
        known = [hand for hand in shown if hand is not None]
        outputs: Iterator[NetworkOutput] = iter(())
        if known:
            with clock('network'):
                images = np.stack([hand.crop for hand in known])
                outputs = iter(self._network.infer(images, [hand.cues for hand in known]))
        with clock('place'):
            hands = [
                None if hand is None else self._hand(next(outputs), hand, observation.camera)
                for hand in shown
            ]
        self.timing_ms = clock.ms
        return hands

    def close(self) -> None:
        """See :class:`Reconstructor`."""
        self._network.close()

    def _shown(self, observation: Observation, detection: Detection) -> _Shown | None:
        """The hand as the network is to see it."""
        about_px = detection.keypoints_px if detection.followed_px is None else detection.followed_px
        if about_px is None or observation.image is None:
            return None
        camera = observation.camera
        try:
            view = self._view(camera, about_px)
        except FrameError:
            return None
        if detection.followed_px is not None:
            least = _LEAST_SPREAD * extent(about_px[list(_PALM)])
            view = view.turned(0.0, 0.0, 0.0, zoom=min(1.0, extent(about_px) / max(least, _SMALLEST_PX)))
        crop, cues = crop_image(observation.image, camera, view), detected_cues(detection, camera, view)
        if detection.side == 'left':
            crop, cues = crop[:, ::-1], _mirrored_cues(cues)
        return _Shown(detection, view, crop, cues)

    def _view(self, camera: Camera, keypoints_px: np.ndarray) -> CropView:
        rays = np.column_stack([camera.rays(keypoints_px), np.ones(21)])
        if not np.isfinite(rays).all():
            raise FrameError('a keypoint lies where the lens of this camera sees nothing')
        if np.ptp(keypoints_px, axis=0).max() < _SMALLEST_PX:
            raise FrameError('the keypoints are all on one pixel')
        return view_of_hand(rays, self._network.image_size)

    def _hand(self, output: NetworkOutput, shown: _Shown, camera: Camera) -> Hand | None:
        """The hand in the camera that took the image; None where that cannot be."""
        detection, view = shown.detection, shown.view
        if detection.side == 'left':
            output = _mirrored_output(output)
        seen_px = camera.project(view.rays(output.keypoints))
        if detection.followed_px is not None:
            if not (output.presence >= _LEAST_PRESENCE and np.isfinite(seen_px).all()):
                return None
            bbox_px = box_in_image(seen_px, camera.width, camera.height)
            detection, keypoints_px = replace(detection, bbox_px=bbox_px), seen_px
        else:
            # What the detector itself gives no confidence the network knows nothing of but by the image
            assert detection.keypoints_px is not None  # else it is not shown
            known = (shown.cues.confidence > 0) & np.isfinite(seen_px).all(1)
            keypoints_px = np.where(known[:, None], seen_px, detection.keypoints_px)
        model, betas = self._models[detection.side], self._shape.betas(output.betas)
        orientation = view.R_crop_camera.T @ rotation_matrices(output.global_orient)
        keypoints, _ = self._kinematics[detection.side].keypoints(
            orientation, output.hand_pose, betas, np.zeros(3)
        )
        try:
            start = HandState(orientation, output.hand_pose, betas, place(keypoints, keypoints_px, camera))
            found = self._adjusters[detection.side].adjusted(start, keypoints_px, camera)
        except FrameError:
            return None
        return assemble_hand(
            model,
            camera,
            detection,
            global_orient=axis_angles(found.orientation),
            hand_pose=found.hand_pose,
            betas=betas,
            transl=found.transl,
            confidence=output.confidence,
            scale=scale_source(camera, self._length_given),
        )


def _mirrored_cues(cues: Cues) -> Cues:
    return replace(
        cues,
        keypoints=(cues.keypoints * _CROP_SIGNS).astype(np.float32),
        world=mirrored_points(cues.world).astype(np.float32),
    )


def _mirrored_output(output: NetworkOutput) -> NetworkOutput:
    return replace(
        output,
        keypoints=output.keypoints * _CROP_SIGNS,
        global_orient=mirrored_axis_angles(output.global_orient),
        hand_pose=mirrored_axis_angles(output.hand_pose),
    )
