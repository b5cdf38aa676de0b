"""RefineNet run by PyTorch, in float32."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.networks.refine_net import load_refine_net
from hand_mesh_ros.rendering.masks import hard_silhouettes


class TorchSilhouetteRefinement:
    """A :class:`~hand_mesh_ros.inference.network.SilhouetteRefinement`."""

    backend = 'torch'

    def __init__(self, weights: Path, threads: int = 0) -> None:
        """Load the network.

        :param weights: a file that ``hand-mesh train mask2hand-refinement`` wrote.
        :param threads: of the whole process's PyTorch; 0 leaves them as they are.
        :raises FileFormatError: the file is missing, damaged or holds another network.
        """
        if threads:
            torch.set_num_threads(threads)
        self._network, description = load_refine_net(weights)
        self.weights_hash = hashlib.sha256(weights.read_bytes()).hexdigest()
        try:
            self.hand_model_hash = str(description['hand_model']['sha256'])
        except (KeyError, TypeError) as error:
            raise FileFormatError(f'{weights}: its description cannot be used: {error!r}') from error
        self.image_size = self._network.configuration.image_size

    @torch.inference_mode()
    def refined(
        self, crop: np.ndarray, half_side: float, vertices: np.ndarray, faces: np.ndarray
    ) -> np.ndarray:
        """See :class:`~hand_mesh_ros.inference.network.SilhouetteRefinement`."""
        points = np.asarray(vertices, np.float64)
        drawn = hard_silhouettes(points[None], faces, np.array([half_side]), self.image_size)
        offsets = self._network(
            torch.from_numpy(np.ascontiguousarray(crop))[None, None].float() / 255.0,
            torch.from_numpy(drawn)[None].float(),
            torch.from_numpy(points)[None].float(),
            torch.tensor([half_side], dtype=torch.float32),
        )
        return points + offsets[0].double().numpy()
