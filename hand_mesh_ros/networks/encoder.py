"""Images to maps of features at several scales, by any backbone that timm knows."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor, library, nn
from torch.nn.functional import interpolate

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.networks.hand_backbone import register

#: Operators whose mere names torchvision needs at import.
_TORCHVISION_OPERATORS = ('nms', 'qnms')
_torchvision_schemas: list[library.Library] = []


class ImageEncoder(nn.Module):
    """Maps of one width at the wanted strides, finest first.

    A hierarchical backbone gives one map per stride, which flow together from coarse to fine (T. Lin et
    al., "Feature pyramid networks", 2017). A plain vision transformer gives a single map, which is scaled
    to each stride (Y. Li et al., "Exploring plain vision transformer backbones for object detection", 2022).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: str, image_size: int, strides: Sequence[int], width: int) -> None:
        """Build the backbone, with random weights.

        :param backbone: name of a timm model.
        :param strides: pixels of the image to one of each map, growing.
        :raises ConfigurationError: timm is missing, or the backbone has no maps at these strides.
        """
        super().__init__()
        self.shapes = tuple((image_size // stride, image_size // stride) for stride in strides)
        self.backbone, self.neck = _with_neck(backbone, image_size, strides, width)
        expected = import_timm().get_pretrained_cfg(backbone)
        for name, values in (('mean', expected.mean), ('deviation', expected.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        #: Whether training leaves the statistics of the backbone's normalisation as they are.
        self.frozen_statistics = False
        # Twice as fast on a CPU; torch's annotations do not have this form
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def see(self, images: Tensor) -> list[Tensor]:
        """The backbone's own maps, of RGB images (B,3,S,S) float, 0..1.

        In single precision: half of it blurs what the backbone knows of places.
        """
        with torch.autocast(images.device.type, enabled=False):
            normal = (images - self.mean) / self.deviation
            return self.backbone(normal.contiguous(memory_format=torch.channels_last))

    def forward(self, seen: list[Tensor]) -> list[Tensor]:
        """Maps (B,C,S/stride,S/stride) of what ``see`` gives."""
        return self.neck(seen)

    def freeze(self, stages: int) -> None:
        """Keep the first stages of the backbone as they are, its stem being the first.

        :raises ConfigurationError: a backbone that is not of a stem and ``blocks``.
        """
        if stages == 0:
            return
        blocks = getattr(self.backbone, 'blocks', None)
        if blocks is None:
            raise ConfigurationError('this backbone has no stages that can be frozen: frozen_stages: 0')
        stem = [module for name, module in self.backbone.named_children() if name != 'blocks']
        for module in [*stem, *blocks[: stages - 1]]:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ImageEncoder:
        """As of any module, but for the backbone's frozen statistics."""
        super().train(mode)
        if self.frozen_statistics:
            self.backbone.eval()
        return self


class FeaturePyramid(nn.Module):
    """Maps of one width, finest first, of a hierarchical backbone's; see ``ImageEncoder``."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        # More layers than the source has: the backbone below may be frozen
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GELU(), nn.Conv2d(width, width, 1)) for c in channels
        )
        self.blocks = nn.ModuleList(nn.Sequential(*(_Bottleneck(width) for _ in range(2))) for _ in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        pyramid = [self.blocks[-1](maps[-1])]
        for finer, blocks in zip(reversed(maps[:-1]), reversed(self.blocks[:-1]), strict=True):
            coarser = interpolate(pyramid[0], size=finer.shape[-2:], mode='nearest')
            pyramid.insert(0, blocks(finer + coarser))
        return pyramid


class _Bottleneck(nn.Module):
    """Residual convolution at half the width; begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width // 2, width, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width // 2, 1),
            nn.GELU(),
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.GELU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _SimplePyramid(nn.Module):
    """Each scale from the one map of a vision transformer."""

    def __init__(self, channels: int, own_stride: int, strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        for stride in strides:
            factor = own_stride // stride
            first = nn.Conv2d(channels, width, 1) if factor == 1 else _doubled(channels, width)
            doublings = [_doubled(width, width) for _ in range(factor.bit_length() - 2)]
            self.scales.append(nn.Sequential(first, *(m for d in doublings for m in (nn.GELU(), d))))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [scale(maps[-1]) for scale in self.scales]


def _doubled(channels: int, width: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)


def _with_neck(name: str, image_size: int, strides: Sequence[int], width: int) -> tuple[nn.Module, nn.Module]:
    timm = import_timm()
    if not timm.is_model(name):
        raise ConfigurationError(f'timm has no backbone {name!r}')
    if name.startswith('vit_'):
        backbone = timm.create_model(name, features_only=True, img_size=image_size, out_indices=(-1,))
        (own_stride,), (channels,) = backbone.feature_info.reduction(), backbone.feature_info.channels()
        if any(own_stride not in (stride, 2 * stride, 4 * stride) for stride in strides):
            raise ConfigurationError(f'{name} has stride {own_stride}: no maps at strides {tuple(strides)}')
        return backbone, _SimplePyramid(channels, own_stride, strides, width)
    reductions = timm.create_model(name, features_only=True).feature_info.reduction()
    if missing := set(strides) - set(reductions):
        raise ConfigurationError(f'{name} has no maps at strides {sorted(missing)}, only {reductions}')
    indices = [reductions.index(stride) for stride in strides]
    backbone = timm.create_model(name, features_only=True, out_indices=indices)
    return backbone, FeaturePyramid(backbone.feature_info.channels(), width)


def import_timm() -> ModuleType:
    """Timm, with the backbones of this package."""
    timm = _own_timm()
    register(timm)
    return timm


def _own_timm() -> ModuleType:
    """Timm, also where its import fails on torchvision.

    The package index has torchvision only for one kind of machine at a time: built for CUDA, it does not
    load its compiled operators next to a torch without CUDA, then fails on their absence. Nothing here calls
    them, so that it is enough to declare them.
    """
    try:
        return importlib.import_module('timm')
    except ImportError as error:
        raise ConfigurationError(f'the image encoder needs timm (pip install timm): {error}') from error
    except RuntimeError as error:
        if 'operator torchvision::' not in str(error):
            raise
    schemas = library.Library('torchvision', 'DEF')
    for operator in _TORCHVISION_OPERATORS:
        schemas.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _torchvision_schemas.append(schemas)  # they last as long as the object does
    for module in [name for name in sys.modules if name.partition('.')[0] in ('timm', 'torchvision')]:
        del sys.modules[module]  # half imported
    return importlib.import_module('timm')
