"""Makes the weights that are shipped from those of a run: calibrates its confidence, and halves its size.

Run as ``python -m hand_mesh_ros.training.shipping runs/maskhand/best.safetensors --out FILE.safetensors``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hand_mesh_ros.evaluation.calibration import fit_calibration
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.maskhand import MaskHand, load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.weights import save_weights
from hand_mesh_ros.training.hand_errors import aligned_errors
from hand_mesh_ros.training.looking import pretrained_look
from hand_mesh_ros.training.samples import SampleMaker

#: Seed of the hands that confidence is calibrated on: neither training's, nor held-out, nor the test's.
CALIBRATION_SEED = 1_000_000_021

#: How many of them are seen by a real landmark network, whose errors are larger.
_LOOKED_SHARE = 0.5

_BATCH, _STEPS = 64, 5


def ship(run: Path, out: Path, count: int) -> dict[str, Any]:
    """Write the weights of ``run``, in half precision, with a calibration, to ``out``.

    :param count: hands to calibrate on.
    :returns: the description that the file carries.
    :raises FileFormatError: ``run`` holds no weights of MaskHand.
    """
    network, description = load_maskhand(run)
    network.half().float()  # what is calibrated is what will be loaded
    offset, slope = _calibrated(network, count)
    description['calibration'] = {'offset': offset, 'slope': slope}
    save_weights(out, network.half(), description)
    return description


def _calibrated(network: MaskHand, count: int) -> tuple[float, float]:
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
    return fit_calibration(torch.cat(log_variances).numpy(), torch.cat(errors).numpy())


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
