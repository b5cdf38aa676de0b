"""The learned method: a network sees each hand in a crop of its own."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import CropView, view_of_hand
from hand_mesh_ros.cues import Cues
from hand_mesh_ros.detection.cues import detected_cues
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.inference.network import HandNetwork, NetworkOutput
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.placement import place, scale_source
from hand_mesh_ros.reconstruction.adjustment import Adjuster
from hand_mesh_ros.reconstruction.assembly import assemble_hand
from hand_mesh_ros.reconstruction.learned_shape import LearnedShape

#: Pixels; keypoints closer together than this are no hand.
_SMALLEST_PX = 1.0

#: Mirrors x, y of a crop in which x goes from -1 to 1.
_CROP_SIGNS = np.array([-1.0, 1.0])


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
        self.timing_ms = {'network': 0.0}
        self._models, self._network = models, network
        self._adjusters = {side: Adjuster(model) for side, model in models.items()}
        self._length_given = hand_length_m is not None
        self._shape = LearnedShape(models['right'], network.hand_model_hash, hand_length_m)

    def forget(self) -> None:
        """Nothing to do: each frame is looked at by itself."""

    def reconstruct(self, observation: Observation, detection: Detection) -> Hand | None:
        """See :class:`Reconstructor`. Raises FrameError for landmarks that no hand can have.

        None without an image, and for a detection without landmarks: which way is up, and so how the hand is
        turned, the network cannot tell well from a picture alone. ``timing_ms`` then holds ``network``, from
        the crop to the vertices.
        """
        if detection.keypoints_px is None or observation.image is None:
            return None
        image, camera = observation.image, observation.camera
        view = self._view(camera, detection.keypoints_px)
        crop, cues = crop_image(image, camera, view), detected_cues(detection, camera, view)
        start = time.perf_counter()
        output = self._infer(crop, cues, detection.side)
        seen_px = camera.project(view.rays(output.keypoints))
        # What the detector itself gives no confidence the network knows nothing of but by the image
        known = (cues.confidence > 0) & np.isfinite(seen_px).all(1)
        keypoints_px = np.where(known[:, None], seen_px, detection.keypoints_px)
        hand = self._hand(output, view, camera, detection, keypoints_px)
        self.timing_ms = {'network': 1e3 * (time.perf_counter() - start)}
        return hand

    def _view(self, camera: Camera, keypoints_px: np.ndarray) -> CropView:
        rays = np.column_stack([camera.rays(keypoints_px), np.ones(21)])
        if not np.isfinite(rays).all():
            raise FrameError('a keypoint lies where the lens of this camera sees nothing')
        if np.ptp(keypoints_px, axis=0).max() < _SMALLEST_PX:
            raise FrameError('the keypoints are all on one pixel')
        return view_of_hand(rays, self._network.image_size)

    def _infer(self, crop: np.ndarray, cues: Cues, side: Side) -> NetworkOutput:
        """What the network says, its output being a hand of ``side`` in the crop as it was taken."""
        if side == 'right':
            return self._network.infer(crop, cues)
        return _mirrored_output(self._network.infer(crop[:, ::-1], _mirrored_cues(cues)))

    def _hand(
        self,
        output: NetworkOutput,
        view: CropView,
        camera: Camera,
        detection: Detection,
        keypoints_px: np.ndarray,
    ) -> Hand:
        model, betas = self._models[detection.side], self._shape.betas(output.betas)
        orientation = view.R_crop_camera.T @ rotation_matrices(output.global_orient)
        keypoints = model.posed(axis_angles(orientation), output.hand_pose, betas, np.zeros(3)).keypoints
        start = HandState(orientation, output.hand_pose, betas, place(keypoints, keypoints_px, camera))
        found = self._adjusters[detection.side].adjusted(start, keypoints_px, camera)
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
