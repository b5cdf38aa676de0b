"""From detections to hands, by several methods."""

from __future__ import annotations

from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.inference.loading import load_hand_network
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.reconstruction.assembly import Reconstructor, assemble_hand
from hand_mesh_ros.reconstruction.fit import FitReconstructor
from hand_mesh_ros.reconstruction.maskhand import MaskHandReconstructor

__all__ = ['METHODS', 'Reconstructor', 'assemble_hand', 'make_reconstructor']

#: Names of the methods, best first.
METHODS = ('maskhand', 'fit')


def make_reconstructor(
    method: str,
    models: dict[Side, HandModel],
    hand_length_m: float | None = None,
    *,
    weights: Path | None = None,
    sampling_steps: int = DEFAULT_STEPS,
    threads: int = 0,
    use_image: bool = True,
) -> Reconstructor:
    """The reconstructor of a name in METHODS.

    :param hand_length_m: wrist to tip of the middle finger, hand flat; None for the model's mean hand.
    :param weights: of ``maskhand``; None for those of the package.
    :param sampling_steps: of ``maskhand``, iterations of the sampling, 1 to 16.
    :param threads: that PyTorch may use; 0 for its default, all cores.
    :param use_image: of ``maskhand``; False lets the network do with what the detector says.
    :raises ConfigurationError: a setting that cannot work, or a method whose requirements are missing.
    :raises FileFormatError: a file of weights that is none.
    """
    if method not in METHODS:
        raise ConfigurationError(f'method must be one of {", ".join(METHODS)}, got {method!r}')
    if method == 'fit':
        return FitReconstructor(models, hand_length_m)
    network = load_hand_network(weights, sampling_steps, threads, use_image)
    return MaskHandReconstructor(models, network, hand_length_m)
