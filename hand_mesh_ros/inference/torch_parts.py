"""Files of weights as parts that PyTorch runs, and that are exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.inference.weights_file import NetworkFile
from hand_mesh_ros.networks.mask2hand import load_mask2hand
from hand_mesh_ros.networks.maskhand import load_maskhand
from hand_mesh_ros.networks.parts import Mask2HandPart, MaskHandDecoder, MaskHandEncoder, Part, RefineNetPart
from hand_mesh_ros.networks.refine_net import load_refine_net

#: Parts in the order in which they run, what is known of their file, and its description.
LoadedParts = tuple[Sequence[Part], NetworkFile, dict[str, Any]]


def maskhand_parts(weights: Path, steps: int, use_image: bool = True) -> LoadedParts:
    """Encoder and decoder of a MaskHand network.

    :param steps: iterations of the sampling.
    :param use_image: False lets the network do with the cues.
    :raises FileFormatError: a file that is missing, damaged or of another network.
    """
    network, description = load_maskhand(weights)
    file = NetworkFile.described(weights, description)
    decoder = MaskHandDecoder(network, HandLayer(load_hand_model()), steps, file.calibration)
    return (MaskHandEncoder(network, use_image), decoder), file, description


def mask2hand_parts(weights: Path) -> LoadedParts:
    """The one part of a Mask2Hand network.

    :raises FileFormatError: a file that is missing, damaged or of another network.
    """
    network, description = load_mask2hand(weights)
    file = NetworkFile.described(weights, description)
    return (Mask2HandPart(network, file.calibration),), file, description


def refinement_parts(weights: Path) -> LoadedParts:
    """The one part of a network that refines Mask2Hand's meshes.

    :raises FileFormatError: a file that is missing, damaged or of another network.
    """
    network, description = load_refine_net(weights)
    return (RefineNetPart(network),), NetworkFile.described(weights, description), description
