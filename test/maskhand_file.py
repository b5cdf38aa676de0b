"""A file of weights of a small network that has learned nothing, for what is around the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.rotations import rotation_matrices
from hand_mesh_ros.networks.maskhand import MaskHand, MaskHandConfiguration, describe
from hand_mesh_ros.networks.rotations import six_numbers
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration
from hand_mesh_ros.networks.weights import save_weights

#: Turns a right hand at rest so that its fingers point up and its palm faces the camera.
UPRIGHT = np.full(3, 2.0 * np.pi / 3.0 / np.sqrt(3.0))


def write_maskhand(path: Path, calibration: dict[str, float] | None = None) -> Path:
    """Weights of a network that sees the same flat, upright hand in every crop; all else is random."""
    torch.manual_seed(0)
    vq_mano = VqMano(VqManoConfiguration(tokens=32, codebook_size=48, code_dim=8, width=16, depth=1))
    _make_constant(vq_mano)
    configuration = MaskHandConfiguration(
        image_size=64,
        backbone='mobilenetv3_small_050',
        strides=(8, 16, 32),
        width=48,
        heads=3,
        refinement_blocks=1,
        synthesizer_blocks=2,
        lifters=((32, 1),),
    )
    network = MaskHand(configuration, vq_mano)
    model = load_hand_model()
    description = describe(network, {'name': model.name, 'sha256': model.sha256})
    if calibration is not None:
        description['calibration'] = calibration
    save_weights(path, network, description)
    return path


def _make_constant(vq_mano: VqMano) -> None:
    """Let every code be decoded to the one pose: the numbers come from what is added for each joint."""
    turns = np.zeros((16, 3))
    turns[0] = UPRIGHT
    numbers = six_numbers(torch.from_numpy(rotation_matrices(turns))).float()
    decoder = vq_mano.decoder
    with torch.no_grad():
        for layer in (decoder.entry, decoder.exit, *(block.mix for block in decoder.blocks)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        decoder.joint[0, :6] = numbers.T
        decoder.exit.weight[:, :6, 1] = torch.eye(6)
