"""A network from its file, run by what there is to run it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.inference.network import (
    MAX_STEPS,
    MIN_STEPS,
    HandNetwork,
    SilhouetteNetwork,
    SilhouetteRefinement,
)

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
    _require_torch('maskhand', threads)
    from hand_mesh_ros.inference.torch_network import TorchHandNetwork
    from hand_mesh_ros.networks.maskhand import MASKHAND_PATH

    return TorchHandNetwork(_weights_of('maskhand', weights, MASKHAND_PATH), steps, threads, use_image)


def load_silhouette_network(weights: Path | None, threads: int = 0) -> SilhouetteNetwork:
    """Mask2Hand, ready to run. PyTorch is imported here and not before.

    :param weights: a file that ``hand-mesh train mask2hand`` wrote; None for that of the package.
    :param threads: that PyTorch may use in this process; 0 for its default, all cores.
    :raises ConfigurationError: a number out of range, no PyTorch, or a package without weights.
    :raises FileFormatError: a file of weights that is none.
    """
    _require_torch('mask2hand', threads)
    from hand_mesh_ros.inference.torch_mask2hand import TorchSilhouetteNetwork
    from hand_mesh_ros.networks.mask2hand import MASK2HAND_PATH

    return TorchSilhouetteNetwork(_weights_of('mask2hand', weights, MASK2HAND_PATH), threads)


def load_silhouette_refinement(weights: Path | None, threads: int = 0) -> SilhouetteRefinement:
    """The network that refines Mask2Hand's meshes, ready to run. PyTorch is imported here and not before.

    :param weights: a file that ``hand-mesh train mask2hand-refinement`` wrote; None for that of the package.
    :param threads: that PyTorch may use in this process; 0 for its default, all cores.
    :raises ConfigurationError: a number out of range, no PyTorch, or a package without weights.
    :raises FileFormatError: a file of weights that is none.
    """
    _require_torch('mask2hand', threads)
    from hand_mesh_ros.inference.torch_refine_net import TorchSilhouetteRefinement
    from hand_mesh_ros.networks.refine_net import REFINE_NET_PATH

    if weights is None and not REFINE_NET_PATH.is_file():
        raise ConfigurationError(
            f'the refinement of mask2hand needs weights, and {REFINE_NET_PATH} is missing: give a file of '
            'yours, as hand-mesh train mask2hand-refinement writes it, or do without'
        )
    return TorchSilhouetteRefinement(weights or REFINE_NET_PATH, threads)


def _require_torch(method: str, threads: int) -> None:
    if threads < 0:
        raise ConfigurationError(f'threads must be 0 or more, got {threads}')
    try:
        import hand_mesh_ros.networks.weights  # noqa: F401

        for name in ('timm', 'torchvision'):  # imported later; see networks.encoder
            if find_spec(name) is None:
                raise ImportError(f'no {name}')
    except ImportError as error:
        raise ConfigurationError(
            f'method {method} needs PyTorch: pip install "hand-mesh-ros[torch]", {_REMEDY} ({error})'
        ) from error


def _weights_of(method: str, weights: Path | None, shipped: Path) -> Path:
    if weights is None and not shipped.is_file():
        raise ConfigurationError(
            f'method {method} needs weights, and {shipped} is missing: give a file of yours '
            f'(--weights FILE; parameter weights_path:=FILE), {_REMEDY}'
        )
    return weights or shipped
