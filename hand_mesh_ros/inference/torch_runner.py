"""Parts of networks run by PyTorch, in float32: the reference of the other engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hand_mesh_ros.networks.parts import Part


class TorchRunner:
    """A :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""

    backend = 'torch'

    def __init__(self, parts: Sequence[Part], threads: int = 0, device: str = 'cpu') -> None:
        """Take parts as they are, ready for inference.

        :param threads: of the whole process's PyTorch; 0 leaves them as they are, by default one for each
            core of the machine.
        :param device: as PyTorch names it, e.g. ``cuda``.
        """
        if threads:
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._parts = [part.to(self._device).eval().requires_grad_(False) for part in parts]
        self.device = 'CPU' if device == 'cpu' else torch.cuda.get_device_name(self._device)

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        known = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
        for part in self._parts:
            given = part(*(known[name] for name in part.inputs))
            known |= zip(part.outputs, given, strict=True)
        return {name: known[name].cpu().numpy() for name in self._parts[-1].outputs}

    def close(self) -> None:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        self._parts = []
