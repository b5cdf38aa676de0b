"""Makes the weights that are shipped from those of a run: calibrates its confidence, and halves its size.

Run as ``python -m hand_mesh_ros.training.shipping runs/maskhand/best.safetensors --out FILE.safetensors``;
weights of Mask2Hand are treated likewise, those of its RefineNet only halved.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hand_mesh_ros.evaluation.calibration import fit_calibration
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.mask2hand import NETWORK_NAME as MASK2HAND
from hand_mesh_ros.networks.mask2hand import Mask2Hand, load_mask2hand, posed_hands
from hand_mesh_ros.networks.maskhand import MaskHand, load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.refine_net import NETWORK_NAME as REFINE_NET
from hand_mesh_ros.networks.refine_net import load_refine_net
from hand_mesh_ros.networks.weights import load_weights, save_weights
from hand_mesh_ros.training.hand_errors import aligned_errors
from hand_mesh_ros.training.looking import pretrained_look
from hand_mesh_ros.training.mask_samples import MaskSampleMaker
from hand_mesh_ros.training.samples import SampleMaker

#: Seed of the hands that confidence is calibrated on: neither training's, nor held-out, nor the test's.
CALIBRATION_SEED = 1_000_000_021

#: How many of them are seen by a real landmark network, whose errors are larger.
_LOOKED_SHARE = 0.5

#: How many masks are not perfect.
_WORN_SHARE = 0.5

_BATCH, _STEPS = 64, 5


def ship(run: Path, out: Path, count: int) -> dict[str, Any]:
    """Write the weights of ``run``, in half precision, with a calibration, to ``out``.

    :param count: hands to calibrate on.
    :returns: the description that the file carries.
    :raises FileFormatError: ``run`` holds no weights of MaskHand, Mask2Hand or RefineNet.
    """
    name = load_weights(run)[1].get('network')
    if name == REFINE_NET:
        refine_net, description = load_refine_net(run)
        save_weights(out, refine_net.half(), description)
        return description
    network: MaskHand | Mask2Hand
    if name == MASK2HAND:
        network, description = load_mask2hand(run)
        network.half().float()  # what is calibrated is what will be loaded
        log_variances, errors = _silhouettes(network, count)
    else:
        network, description = load_maskhand(run)
        network.half().float()
        log_variances, errors = _crops(network, count)
    offset, slope = fit_calibration(log_variances.numpy(), errors.numpy())
    description['calibration'] = {'offset': offset, 'slope': slope}
    save_weights(out, network.half(), description)
    return description


@torch.no_grad()
def _silhouettes(network: Mask2Hand, count: int) -> tuple[Tensor, Tensor]:
    """Log-variances and aligned errors (N,21), metres, of the hands that the network tells first."""
    layer = HandLayer(load_hand_model())
    size = network.configuration.image_size
    maker = MaskSampleMaker(seed=CALIBRATION_SEED, size=size, worn_share=_WORN_SHARE)
    log_variances, errors = [], []
    for first in tqdm(range(0, count, _BATCH), unit='batch', disable=None):
        samples = maker[np.arange(first, min(first + _BATCH, count))]
        hands = network(samples.masks.float() / 255, samples.half_sides)
        told = hands.chosen(hands.scores.argmax(dim=1))
        keypoints = posed_hands(layer, told, samples.half_sides).keypoints
        log_variances.append(told.log_variance[:, 0])
        errors.append(aligned_errors(keypoints, samples.keypoints))
    return torch.cat(log_variances), torch.cat(errors)


def _crops(network: MaskHand, count: int) -> tuple[Tensor, Tensor]:
    """Log-variances and aligned errors (N,21), metres."""
    model = load_hand_model()
    layer = HandLayer(model)
    size = network.configuration.image_size
    maker = SampleMaker(
        model,
        CALIBRATION_SEED,
        size,
        residuals=True,
        pictures=True,
        look=pretrained_look,
        looked_share=_LOOKED_SHARE,
    )
    log_variances, errors = [], []
    for first in tqdm(range(0, count, _BATCH), unit='batch', disable=None):
        samples = maker[np.arange(first, min(first + _BATCH, count))]
        assert samples.images is not None  # the maker renders
        found = predict(network, layer, samples.images.float() / 255, samples.cues, steps=_STEPS)
        log_variances.append(found.log_variance)
        errors.append(aligned_errors(found.keypoints, samples.keypoints))
    return torch.cat(log_variances), torch.cat(errors)


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', type=Path, metavar='FILE', help='best.safetensors of hand-mesh train maskhand')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE')
    parser.add_argument('--count', type=int, default=2048, metavar='N', help='hands to calibrate on')
    arguments = parser.parse_args()
    print(ship(arguments.run, arguments.out, arguments.count))


if __name__ == '__main__':
    main()
