"""RefineNet: moves the vertices of a hand that Mask2Hand told so that its silhouette fits the mask better.

Source: arXiv 2205.15553. As there, a network looks at the mask and at the silhouette of the hand, and tells
how far each vertex moves, at most 50 mm. What is different: it also knows where some of the vertices are, and
it moves them along a learned basis that begins with the smoothest functions on the mesh, of which there need
be far fewer than vertices.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.networks.configuration import MAX_IMAGE_SIZE
from hand_mesh_ros.networks.encoder import import_timm
from hand_mesh_ros.networks.lifter import ResidualBlock
from hand_mesh_ros.networks.shipped import REFINE_NET_PATH
from hand_mesh_ros.networks.weights import built, load_weights

#: What a file of weights calls this network.
NETWORK_NAME = 'mask2hand-refinement'

#: The farthest that a vertex moves, metres.
FARTHEST_M = 0.05

#: Pixels of each side that become channels of one place.
_STEM_STRIDE = 4

#: Every so many vertices, the network knows where one is.
_KNOWN_EACH = 16

#: Half sides that vertices move, root mean square, for each unit of a coefficient.
_BASIS_SIZE = 0.03

_AXES = 3


@dataclass(frozen=True)
class RefineNetConfiguration:
    """Size of a RefineNet.

    :raises ConfigurationError: sizes that make no network.
    """

    image_size: int = 96  #: side of the crop, pixels
    channels: tuple[int, ...] = (16, 32, 64, 128)  #: of ResNet-18's stages
    width: int = 256  #: of the head
    functions: int = 24  #: on the mesh, along each of three axes: that many coefficients of moves
    vertices: int = 778  #: of the hand model

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= MAX_IMAGE_SIZE or self.image_size % 32:
            raise ConfigurationError(
                f'image_size is {self.image_size}, must be a multiple of 32, up to {MAX_IMAGE_SIZE}'
            )
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ConfigurationError(f'channels are {self.channels}, must be four positive numbers')
        for name in ('width', 'functions', 'vertices'):
            if getattr(self, name) < 1:
                raise ConfigurationError(f'{name} is {getattr(self, name)}, must be at least 1')
        if self.functions > self.vertices:
            raise ConfigurationError(f'functions is {self.functions}, must be at most vertices')


class RefineNet(nn.Module):
    """The network. As it is built it moves nothing."""

    def __init__(self, configuration: RefineNetConfiguration, faces: np.ndarray | None = None) -> None:
        """Build it with random weights.

        :param faces: (F,3) of the hand model: the basis begins with the smoothest functions on its mesh; else
            at random.
        """
        super().__init__()
        c = configuration
        self.configuration = c
        self.backbone = import_timm().create_model(
            'resnet18', channels=c.channels, features_only=True, out_indices=(4,)
        )
        # See Mask2Hand: blocks of pixels become channels at once
        stem = self.backbone['conv1'].out_channels
        self.backbone['conv1'] = nn.Conv2d(2 * _STEM_STRIDE**2, stem, 3, padding=1, bias=False)
        self.backbone['maxpool'] = nn.Identity()
        cells, known = (c.image_size // 32) ** 2, -(-c.vertices // _KNOWN_EACH)
        self.entry = nn.Linear(c.channels[-1] * cells + _AXES * known + 1, c.width)
        self.block = ResidualBlock(c.width)
        self.norm = nn.LayerNorm(c.width)
        self.coefficients = nn.Linear(c.width, _AXES * c.functions)
        if faces is None:
            functions = torch.randn(c.functions, c.vertices)
        else:
            functions = torch.from_numpy(smooth_functions(faces, c.vertices, c.functions)).float()
        # Along each axis the same functions, (axis, function, vertex, axis)
        moves = torch.eye(_AXES)[:, None, None, :] * functions[None, :, :, None]
        #: (3 functions, 3 vertices): moves in half sides for each coefficient
        self.basis = nn.Parameter(_BASIS_SIZE * moves.flatten(2).flatten(0, 1))
        nn.init.zeros_(self.coefficients.weight)
        nn.init.zeros_(self.coefficients.bias)
        # Twice as fast on a CPU; torch's annotations do not have this form
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, masks: Tensor, drawn: Tensor, vertices: Tensor, half_sides: Tensor) -> Tensor:
        """How far vertices move (B,V,3), metres in the axes of the crops' cameras, at most ``FARTHEST_M``.

        :param masks: (B,1,S,S) float, 0..1.
        :param drawn: (B,1,S,S) likewise, the silhouettes of the hands; see ``hard_silhouettes``.
        :param vertices: (B,V,3) of the hands, metres in the crops' cameras.
        :param half_sides: (B,) focal lengths of those over half the crops' side.
        """
        blocks = pixel_unshuffle(torch.cat([masks, drawn], dim=1), _STEM_STRIDE)
        (maps,) = self.backbone(blocks.contiguous(memory_format=torch.channels_last))
        # A hand that is twice as large looks the same from twice as far, and all is told in half sides
        depth = vertices[..., 2].mean(dim=1).clamp(min=1e-2)
        half_side_m = (depth / half_sides)[:, None, None]
        known = vertices[:, ::_KNOWN_EACH] / half_side_m
        known = torch.cat([known[..., :2], known[..., 2:] - half_sides[:, None, None]], dim=2)
        x = self.entry(torch.cat([maps.flatten(1), known.flatten(1), half_sides[:, None].log()], dim=1))
        x = self.block(x)
        with torch.autocast(masks.device.type, enabled=False):
            moves = self.coefficients(self.norm(x.float())) @ self.basis.float()
            offsets = half_side_m * moves.unflatten(1, (-1, _AXES))
            lengths = offsets.square().sum(dim=2, keepdim=True).clamp(min=1e-12).sqrt()
            return offsets * (FARTHEST_M / lengths).clamp(max=1)


def smooth_functions(faces: np.ndarray, vertices: int, count: int) -> np.ndarray:
    """The functions (count,V) on a mesh that differ least between neighbours, their root mean square 1:
    eigenvectors of its graph's Laplacian. The first is constant."""
    neighbours = np.zeros((vertices, vertices))
    ends = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    neighbours[ends[:, 0], ends[:, 1]] = neighbours[ends[:, 1], ends[:, 0]] = 1.0
    _, functions = np.linalg.eigh(np.diag(neighbours.sum(axis=1)) - neighbours)
    return functions.T[:count] * np.sqrt(vertices)


def describe(network: RefineNet, hand_model: dict[str, str]) -> dict[str, Any]:
    """What a file of weights says of its network; ``load_refine_net`` reads it."""
    return {
        'network': NETWORK_NAME,
        'configuration': asdict(network.configuration),
        'hand_model': hand_model,
    }


def load_refine_net(path: Path = REFINE_NET_PATH) -> tuple[RefineNet, dict[str, Any]]:
    """The network of a file that ``hand-mesh train mask2hand-refinement`` wrote, on the CPU, for inference,
    and the file's description.

    :raises FileFormatError: the file is missing, damaged or holds another network.
    """
    weights, description = load_weights(path)
    try:
        if description['network'] != NETWORK_NAME:
            raise ValueError(f'a {description["network"]} network')
        sizes = dict(description['configuration'])
        sizes['channels'] = tuple(sizes['channels'])
        configuration = RefineNetConfiguration(**sizes)
        network = built(lambda: RefineNet(configuration), weights)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigurationError) as error:
        raise FileFormatError(f'{path}: not the weights of a RefineNet: {error}') from error
    return network.eval().requires_grad_(False), description
