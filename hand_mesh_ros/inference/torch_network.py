"""MaskHand run by PyTorch, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hand_mesh_ros.cues import Cues
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.rotations import axis_angles
from hand_mesh_ros.inference.network import NetworkOutput
from hand_mesh_ros.inference.weights_file import LoadedFile
from hand_mesh_ros.networks.maskhand import load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.skeleton_graph import HandCues


class TorchHandNetwork:
    """A :class:`~hand_mesh_ros.inference.network.HandNetwork`."""

    backend = 'torch'

    def __init__(self, weights: Path, steps: int, threads: int = 0, use_image: bool = True) -> None:
        """Load the network.

        :param weights: a file that ``hand-mesh train maskhand`` wrote.
        :param steps: iterations of the sampling.
        :param threads: of the whole process's PyTorch; 0 leaves them as they are, by default one for each
            core of the machine.
        :param use_image: False lets the network do with the cues.
        :raises FileFormatError: the file is missing, damaged or holds another network.
        """
        if threads:
            torch.set_num_threads(threads)
        self._network, description = load_maskhand(weights)
        self._layer = HandLayer(load_hand_model())
        self._steps, self._use_image = steps, use_image
        self.image_size = self._network.configuration.image_size
        file = LoadedFile(weights, description)
        self._offset, self._slope = file.calibration
        self.hand_model_hash, self.weights_hash = file.hand_model_hash, file.sha256

    @torch.inference_mode()
    def infer(self, image: np.ndarray, cues: Cues) -> NetworkOutput:
        """See :class:`~hand_mesh_ros.inference.network.HandNetwork`."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255.0
        prediction = predict(
            self._network,
            self._layer,
            pixels,
            _as_tensors(cues),
            steps=self._steps,
            use_image=self._use_image,
        )
        confidence = torch.sigmoid(self._offset - self._slope * prediction.log_variance)
        rotations = axis_angles(_as_array(prediction.rotations))
        return NetworkOutput(
            global_orient=rotations[0],
            hand_pose=rotations[1:].ravel(),
            betas=_as_array(prediction.betas),
            confidence=_as_array(confidence),
            keypoints=_as_array(prediction.seen_keypoints),
        )


def _as_tensors(cues: Cues) -> HandCues:
    arrays = (cues.keypoints, cues.confidence, cues.relative_depth, cues.world, cues.present)
    return HandCues(*(torch.from_numpy(array)[None] for array in arrays))


def _as_array(tensor: Tensor) -> np.ndarray:
    """The only hand of a batch, float64."""
    return tensor[0].double().numpy()
