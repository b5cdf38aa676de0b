"""A file of weights of a small Mask2Hand that has learned nothing, for what is around the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from maskhand_file import UPRIGHT

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.rotations import rotation_matrices
from hand_mesh_ros.networks.mask2hand import Mask2Hand, Mask2HandConfiguration, describe
from hand_mesh_ros.networks.rotations import six_numbers
from hand_mesh_ros.networks.weights import save_weights


def write_mask2hand(path: Path, hypotheses: int = 2) -> Path:
    """Weights of a network that sees the same flat, upright hand in every crop, as several hypotheses."""
    torch.manual_seed(0)
    configuration = Mask2HandConfiguration(
        image_size=64, channels=(8, 8, 8, 8), map_width=8, width=16, blocks=1, hypotheses=hypotheses
    )
    network = Mask2Hand(configuration)
    turns = np.zeros((16, 3))
    turns[0] = UPRIGHT
    numbers = six_numbers(torch.from_numpy(rotation_matrices(turns))).float()
    with torch.no_grad():
        network.hands.weight.zero_()
        bias = network.hands.bias.view(configuration.hypotheses, -1)
        bias.zero_()
        bias[:, : numbers.numel()] = numbers.flatten()
        bias[:, -3:] = torch.tensor([0.0, 0.41, 0.41])  # the wrist of a flat hand in its crop
    model = load_hand_model()
    save_weights(path, network, describe(network, {'name': model.name, 'sha256': model.sha256}))
    return path
