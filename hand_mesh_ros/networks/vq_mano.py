"""VQ-MANO: hand poses as sequences of tokens from a learned codebook.

A convolutional autoencoder over the 16 joints of a hand (global orientation first) with a vector
quantiser in its middle: the first stage of MaskHand (arXiv 2412.13393). Each joint becomes
``tokens / 16`` tokens; every token is the index of one row of the codebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.networks.configuration import MAX_DEPTH
from hand_mesh_ros.networks.rotations import matrices_from_six, six_numbers
from hand_mesh_ros.networks.weights import built, load_weights

JOINTS = 16

#: What a file of weights calls this network.
NETWORK_NAME = 'vq_mano'

#: Dilations of successive residual blocks: three of them see all 16 joints.
_DILATIONS = (1, 2, 4)


@dataclass(frozen=True)
class VqManoConfiguration:
    """Size of a VQ-MANO network.

    :raises ConfigurationError: sizes that make no network.
    """

    tokens: int = 64  #: of one hand; a multiple of 16
    codebook_size: int = 1024
    code_dim: int = 64
    width: int = 192  #: channels of the convolutions
    depth: int = 3  #: residual blocks in the encoder, and in the decoder

    def __post_init__(self) -> None:
        if self.tokens < JOINTS or self.tokens % JOINTS:
            raise ConfigurationError(f'tokens is {self.tokens}, must be a multiple of {JOINTS}')
        for name in ('codebook_size', 'code_dim', 'width', 'depth'):
            if getattr(self, name) < 1:
                raise ConfigurationError(f'{name} is {getattr(self, name)}, must be at least 1')
        if self.depth > MAX_DEPTH:
            raise ConfigurationError(f'depth is {self.depth}, must be at most {MAX_DEPTH}')


class VqManoOutput(NamedTuple):
    """A pose put through the whole network."""

    rotations: Tensor  #: (B,16,3,3) what the decoder made of the codes
    embeddings: Tensor  #: (B,N,D) what the encoder made of the pose
    codes: Tensor  #: (B,N,D) the codebook's rows nearest to the embeddings, without gradient
    indices: Tensor  #: (B,N) int64, which rows


class VqMano(nn.Module):
    """Poses to tokens and back.

    The codebook is a buffer, not a parameter: training moves it by averages of what falls to each code.
    """

    codebook: Tensor

    def __init__(self, configuration: VqManoConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        self.encoder = _Encoder(configuration)
        self.decoder = _Decoder(configuration)
        self.register_buffer('codebook', torch.randn(configuration.codebook_size, configuration.code_dim))

    def forward(self, rotations: Tensor) -> VqManoOutput:
        """Encode, quantise and decode rotations (B,16,3,3).

        The decoder's gradient passes straight through the quantiser, to the encoder.
        """
        embeddings = self.embed(rotations)
        indices = self.nearest_codes(embeddings)
        codes = embedding(indices, self.codebook)
        decoded = self.decode_embeddings(embeddings + (codes - embeddings).detach())
        return VqManoOutput(decoded, embeddings, codes, indices)

    def embed(self, rotations: Tensor) -> Tensor:
        """Embeddings (B,N,D) of rotations (B,16,3,3), not yet quantised."""
        return self.encoder(six_numbers(rotations))

    def nearest_codes(self, embeddings: Tensor) -> Tensor:
        """Index (...) int64 of the codebook's row nearest to each embedding (...,D)."""
        # |e - c|^2 less |e|^2, which is the same for all codes; float32 whatever autocast says
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            flat = embeddings.float().flatten(0, -2)
            half_squares = (self.codebook * self.codebook).sum(dim=1) / 2
            distances = torch.addmm(half_squares, flat, self.codebook.T, alpha=-1)
            return distances.argmin(dim=1).unflatten(0, embeddings.shape[:-1])

    def encode(self, rotations: Tensor) -> Tensor:
        """Tokens (B,N) int64, each 0 to codebook_size - 1, of rotations (B,16,3,3)."""
        return self.nearest_codes(self.embed(rotations))

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Rotations (B,16,3,3) of tokens (B,N)."""
        return self.decode_embeddings(embedding(indices, self.codebook))

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Rotations (B,16,3,3), each against its parent, of embeddings (B,N,D).

        These may be rows of the codebook or mixtures of them, ``softmax(logits) @ codebook``.
        """
        return matrices_from_six(self.decoder(embeddings).float())


class _Encoder(nn.Module):
    def __init__(self, configuration: VqManoConfiguration) -> None:
        super().__init__()
        width, per_joint = configuration.width, configuration.tokens // JOINTS
        self.entry = nn.Conv1d(6, width, kernel_size=3, padding=1)
        self.joint = _joint_embedding(width)
        self.blocks = _blocks(configuration)
        # Each of a joint's tokens has weights of its own
        self.exit = nn.ConvTranspose1d(width, configuration.code_dim, kernel_size=per_joint, stride=per_joint)

    def forward(self, numbers: Tensor) -> Tensor:
        features = self.blocks(self.entry(numbers.transpose(1, 2)) + self.joint)
        return self.exit(features).transpose(1, 2)


class _Decoder(nn.Module):
    def __init__(self, configuration: VqManoConfiguration) -> None:
        super().__init__()
        width, per_joint = configuration.width, configuration.tokens // JOINTS
        self.entry = nn.Conv1d(configuration.code_dim, width, kernel_size=per_joint, stride=per_joint)
        self.joint = _joint_embedding(width)
        self.blocks = _blocks(configuration)
        self.exit = nn.Conv1d(width, 6, kernel_size=3, padding=1)

    def forward(self, embeddings: Tensor) -> Tensor:
        features = self.blocks(self.entry(embeddings.transpose(1, 2)) + self.joint)
        return self.exit(features).transpose(1, 2)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.spread = nn.Conv1d(width, width, kernel_size=3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, kernel_size=1)
        # A block begins as the identity, which keeps a deep stack trainable without normalisation
        nn.init.zeros_(self.mix.weight)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.mix(silu(self.spread(silu(features))))


def _blocks(configuration: VqManoConfiguration) -> nn.Sequential:
    dilations = [_DILATIONS[i % len(_DILATIONS)] for i in range(configuration.depth)]
    return nn.Sequential(*(_ResidualBlock(configuration.width, dilation) for dilation in dilations))


def _joint_embedding(width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(1, width, JOINTS) * 0.1)


def load_vq_mano(path: Path) -> VqMano:
    """The network of a file that ``hand-mesh train vq-mano`` wrote, on the CPU, for inference.

    :raises FileFormatError: the file is missing, damaged or holds another network.
    """
    weights, description = load_weights(path)
    try:
        if description['network'] != NETWORK_NAME:
            raise ValueError(f'a {description["network"]} network')
        configuration = VqManoConfiguration(**description['configuration'])
        network = built(lambda: VqMano(configuration), weights)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigurationError) as error:
        raise FileFormatError(f'{path}: not the weights of a VQ-MANO network: {error}') from error
    return network.eval().requires_grad_(False)
