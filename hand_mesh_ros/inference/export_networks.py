"""Which graphs a file of weights is exported as, and where they are written."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.inference.export import exported, refer_to_weights, write_graph
from hand_mesh_ros.inference.graph_files import WEIGHTS_HASH, maskhand_graphs, single_graph
from hand_mesh_ros.inference.torch_parts import LoadedParts, mask2hand_parts, maskhand_parts, refinement_parts
from hand_mesh_ros.networks import mask2hand, maskhand, refine_net
from hand_mesh_ros.networks.weights import load_weights

#: Hands of the example that is traced, where graphs take any number: neither 0 nor 1, which are special.
_EXAMPLE_BATCH = 3

_CONVENTION = {
    'colour': 'RGB, 0..255',
    'normalisation': 'in the graph',
    'crop': 'camera turned onto the hand, wrist to middle finger upright; see hand_mesh_ros/crop_view.py',
}


def export_weights(weights: Path, *, steps: int = 1, batch: int = 0, out: Path | None = None) -> list[Path]:
    """Write the graphs of a file of weights, whichever network's it is.

    :param steps: of MaskHand: iterations of the sampling, unrolled.
    :param batch: hands of every batch; 0 for any number.
    :param out: folder to write to, to which the weights are copied; None for that of the weights.
    :raises FileFormatError: a file that is missing, damaged or of no network that can be exported.
    """
    parts, file, description = _loaded(weights, steps)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / weights.name).exists() or not (out / weights.name).samefile(weights):
            weights = Path(shutil.copyfile(weights, out / weights.name))
    is_maskhand = description['network'] == maskhand.NETWORK_NAME
    paths = maskhand_graphs(weights, steps) if is_maskhand else single_graph(weights)
    description = {
        **description,
        **_CONVENTION,
        WEIGHTS_HASH: file.sha256,
        'batch': batch,
        'precision': 'fp32',
    }
    tensors = _example(parts[0].inputs, file.image_size, batch or _EXAMPLE_BATCH)
    for part, path in zip(parts, paths, strict=True):
        graph = exported(part, tensors, batch)
        refer_to_weights(graph.graph, weights)
        decodes = is_maskhand and part is parts[-1]  # the encoder is the same for all
        write_graph(graph, {**description, 'iterations': steps} if decodes else description, path)
        with torch.inference_mode():
            tensors = part(*tensors)
    return list(paths)


def _loaded(weights: Path, steps: int) -> LoadedParts:
    _, description = load_weights(weights)
    name = description.get('network') if isinstance(description, dict) else None
    if name == maskhand.NETWORK_NAME:
        return maskhand_parts(weights, steps)
    if name == mask2hand.NETWORK_NAME:
        return mask2hand_parts(weights)
    if name == refine_net.NETWORK_NAME:
        return refinement_parts(weights)
    raise FileFormatError(f'{weights}: holds the network {name!r}, which is not one that is exported')


def _example(names: tuple[str, ...], size: int, batch: int) -> tuple[Tensor, ...]:
    """Inputs of the first part of a network: any that are no special case."""
    random = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=random)

    known = {
        'images': (numbers(size, size, 3) * 255).to(torch.uint8),
        'keypoints': numbers(21, 2) - 0.5,
        'confidence': numbers(21),
        'relative_depth': numbers(21) - 0.5,
        'world': numbers(21, 3) - 0.5,
        'present': torch.ones(batch, 3, dtype=torch.bool),
        'crops': (numbers(size, size) * 255).to(torch.uint8),
        'drawn': numbers(size, size).round(),
        'half_sides': 5.0 + numbers(),
        'vertices': numbers(778, 3) * 0.1 + torch.tensor([0.0, 0.0, 0.5]),
    }
    return tuple(known[name] for name in names)
