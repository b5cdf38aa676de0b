"""A network from its file, run by what there is to run it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.inference.network import MAX_STEPS, MIN_STEPS, HandNetwork

_REMEDY = 'or choose method fit (--method fit; parameter method:=fit), which needs none'


def load_hand_network(
    weights: Path | None, steps: int, threads: int = 0, use_image: bool = True
) -> HandNetwork:
    """MaskHand, ready to run. PyTorch is imported here and not before.

    :param weights: a file that ``hand-mesh train maskhand`` wrote; None for that of the package.
    :param steps: iterations of the sampling, 1 to 16.
    :param threads: that PyTorch may use in this process; 0 for its default, all cores.
    :param use_image: False lets the network do with what the detector says.
    :raises ConfigurationError: a number out of range, no PyTorch, or a package without weights.
    :raises FileFormatError: a file of weights that is none.
    """
    if not MIN_STEPS <= steps <= MAX_STEPS:
        raise ConfigurationError(f'sampling_steps must be within {MIN_STEPS} to {MAX_STEPS}, got {steps}')
    if threads < 0:
        raise ConfigurationError(f'threads must be 0 or more, got {threads}')
    try:
        from hand_mesh_ros.inference.torch_network import TorchHandNetwork
        from hand_mesh_ros.networks.maskhand import MASKHAND_PATH

        for name in ('timm', 'torchvision'):  # imported later; see networks.encoder
            if find_spec(name) is None:
                raise ImportError(f'no {name}')
    except ImportError as error:
        raise ConfigurationError(
            f'method maskhand needs PyTorch: pip install "hand-mesh-ros[torch]", {_REMEDY} ({error})'
        ) from error
    if weights is None and not MASKHAND_PATH.is_file():
        raise ConfigurationError(
            f'method maskhand needs weights, and {MASKHAND_PATH} is missing: give a file of yours '
            f'(--weights FILE; parameter weights_path:=FILE), {_REMEDY}'
        )
    return TorchHandNetwork(weights or MASKHAND_PATH, steps, threads, use_image)
