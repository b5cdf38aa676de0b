"""MaskHand in this package's size and in the paper's: inputs, and the least time that memory allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from hand_mesh_ros.benchmark.timing import ONE_HAND, Row, alternately
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.inference.torch_parts import maskhand_parts
from hand_mesh_ros.inference.torch_runner import TorchRunner
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.maskhand import MaskHand, describe
from hand_mesh_ros.networks.parts import MaskHandDecoder, MaskHandEncoder, Part
from hand_mesh_ros.networks.shipped import MASKHAND_PATH
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration
from hand_mesh_ros.networks.weights import load_weights, save_weights

#: Runs on the CPU, where one takes seconds.
_PAPER_WARM_UP, _PAPER_RUNS = 1, 5


def default_parts() -> Sequence[Part]:
    """Encoder and decoder of the package's own MaskHand."""
    return maskhand_parts(MASKHAND_PATH, DEFAULT_STEPS)[0]


def paper_parts() -> Sequence[Part]:
    """Encoder and decoder of one of the paper's size, ViT-H/16, that has learned nothing: 2.6 GB."""
    network = _paper_network()
    return MaskHandEncoder(network), MaskHandDecoder(network, HandLayer(load_hand_model()), DEFAULT_STEPS)


#: Networks by name.
SIZES: Mapping[str, Callable[[], Sequence[Part]]] = {'default': default_parts, 'paper-size': paper_parts}


def write_paper_weights(path: Path) -> Path:
    """A file of weights, in half precision, of the paper's size."""
    model = load_hand_model()
    network = _paper_network().half()
    save_weights(path, network, describe(network, {'name': model.name, 'sha256': model.sha256}))
    return path


def random_inputs(parts: Sequence[Part], batch: int) -> dict[str, np.ndarray]:
    """Something of the right kind for the hands of a batch; what it is does not change the times."""
    rng = np.random.default_rng(0)
    encoder = parts[0]
    assert isinstance(encoder, MaskHandEncoder)
    size = encoder.network.configuration.image_size
    return {
        'images': rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
        'keypoints': rng.uniform(-0.8, 0.8, (batch, 21, 2)).astype(np.float32),
        'confidence': rng.uniform(0.2, 1.0, (batch, 21)).astype(np.float32),
        'relative_depth': rng.normal(0.0, 0.2, (batch, 21)).astype(np.float32),
        'world': rng.normal(0.0, 0.7, (batch, 21, 3)).astype(np.float32),
        'present': np.ones((batch, 3), bool),
    }


def weight_count(parts: Sequence[Part]) -> int:
    """Numbers in the weights, each counted once."""
    tensors = {id(tensor): tensor for part in parts for tensor in part.parameters()}
    return sum(tensor.numel() for tensor in tensors.values())


def floor_ms(weights: int, bytes_each: int, bandwidth: float) -> float:
    """The least that reading all weights once takes, at ``bandwidth`` bytes a second."""
    return 1e3 * weights * bytes_each / bandwidth


def paper_row(threads: int) -> tuple[Row, int]:
    """The paper's size by PyTorch on the CPU, one hand, and the bytes of its weights."""
    parts = paper_parts()
    runner, inputs = TorchRunner(parts, threads), random_inputs(parts, 1)
    times = alternately({ONE_HAND: lambda: runner.run(inputs)}, _PAPER_WARM_UP, _PAPER_RUNS)
    return times.rows('torch', 'maskhand, paper-size')[0], 4 * weight_count(parts)


def _paper_network() -> MaskHand:
    torch.manual_seed(0)
    _, description = load_weights(MASKHAND_PATH)
    vq_mano = VqMano(VqManoConfiguration(**description['vq_mano']))
    return MaskHand(MaskHandConfiguration.paper(), vq_mano).eval().requires_grad_(False)
