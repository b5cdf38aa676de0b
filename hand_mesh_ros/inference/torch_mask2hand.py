"""Mask2Hand run by PyTorch, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hand_mesh_ros.hand_model.rotations import axis_angles
from hand_mesh_ros.inference.network import SilhouetteHand
from hand_mesh_ros.inference.weights_file import LoadedFile
from hand_mesh_ros.networks.mask2hand import load_mask2hand, wrist_position


class TorchSilhouetteNetwork:
    """A :class:`~hand_mesh_ros.inference.network.SilhouetteNetwork`."""

    backend = 'torch'

    def __init__(self, weights: Path, threads: int = 0) -> None:
        """Load the network.

        :param weights: a file that ``hand-mesh train mask2hand`` wrote.
        :param threads: of the whole process's PyTorch; 0 leaves them as they are.
        :raises FileFormatError: the file is missing, damaged or holds another network.
        """
        if threads:
            torch.set_num_threads(threads)
        self._network, description = load_mask2hand(weights)
        file = LoadedFile(weights, description)
        self._calibration = file.calibration
        self.hand_model_hash, self.weights_hash = file.hand_model_hash, file.sha256
        self.image_size = self._network.configuration.image_size

    @torch.inference_mode()
    def infer(self, crop: np.ndarray, half_side: float) -> tuple[SilhouetteHand, ...]:
        """See :class:`~hand_mesh_ros.inference.network.SilhouetteNetwork`."""
        masks = torch.from_numpy(np.ascontiguousarray(crop))[None, None].float() / 255.0
        half_sides = torch.tensor([half_side], dtype=torch.float32)
        hands = self._network(masks, half_sides)
        offset, slope = self._calibration
        scores = hands.scores[0].softmax(dim=0)
        rotations = axis_angles(hands.rotations[0].double().numpy())
        wrists = wrist_position(hands.place[0], half_sides).double().numpy()
        confidence = torch.sigmoid(offset - slope * hands.log_variance[0]).double().numpy()
        found = [
            SilhouetteHand(
                global_orient=rotations[k, 0],
                hand_pose=rotations[k, 1:].ravel(),
                betas=hands.betas[0, k].double().numpy(),
                wrist=wrists[k],
                confidence=confidence[k],
                score=float(scores[k]),
            )
            for k in range(len(scores))
        ]
        return tuple(sorted(found, key=lambda hand: -hand.score))
