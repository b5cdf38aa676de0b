"""Mask2Hand: from the silhouette of a hand to its pose, shape and place.

Source: arXiv 2205.15553. As there, a residual network looks at the mask, and heads tell the parameters of a
hand model, which a rendered silhouette is compared with. What is different: the crop's camera enters as one
number, for how much perspective a mask shows tells how far away and how turned a hand is; keypoints are found
in maps first, which takes far fewer masks to learn than parameters from one vector; and of a mask that
several poses explain, several are told, each with a score.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.layer import HandLayer, HandLayerOutput
from hand_mesh_ros.networks.configuration import MAX_DEPTH, MAX_IMAGE_SIZE
from hand_mesh_ros.networks.context import image_keypoints
from hand_mesh_ros.networks.deformable_attention import sample_bilinear
from hand_mesh_ros.networks.encoder import FeaturePyramid, import_timm
from hand_mesh_ros.networks.lifter import BETAS, ResidualBlock
from hand_mesh_ros.networks.rotations import matrices_from_six
from hand_mesh_ros.networks.shipped import MASK2HAND_PATH
from hand_mesh_ros.networks.skeleton_graph import KEYPOINTS
from hand_mesh_ros.networks.vq_mano import JOINTS
from hand_mesh_ros.networks.weights import built, load_weights

#: What a file of weights calls this network.
NETWORK_NAME = 'mask2hand'

_SIX = 6
_PLACE = 3

#: Of ResNet's stem.
_STEM_STRIDE, _STEM_WIDTH = 4, 64

#: How much finer than the map at stride 8 is told what is seen, and channels read from it at each keypoint.
_FINER, _LOCAL = 2, 16

#: Metres that a wrist is away, for each half side that its crop's focal length has, as a rule.
_DEPTH_PER_HALF_SIDE = 0.10

#: Logarithm of the half sides of crops: mean and standard deviation, as a rule.
_HALF_SIDE_MEAN, _HALF_SIDE_DEVIATION = 1.9, 0.5


@dataclass(frozen=True)
class Mask2HandConfiguration:
    """Size of a Mask2Hand network.

    :raises ConfigurationError: sizes that make no network.
    """

    image_size: int = 96  #: side of the crop, pixels
    channels: tuple[int, ...] = (48, 96, 192, 384)  #: of ResNet-18's stages
    map_width: int = 96  #: of the maps at stride 8 in which keypoints are found
    width: int = 768  #: of the head
    blocks: int = 2  #: residual blocks of the head
    hypotheses: int = 4

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= MAX_IMAGE_SIZE or self.image_size % 32:
            raise ConfigurationError(
                f'image_size is {self.image_size}, must be a multiple of 32, up to {MAX_IMAGE_SIZE}'
            )
        if self.blocks > MAX_DEPTH:
            raise ConfigurationError(f'blocks is {self.blocks}, must be at most {MAX_DEPTH}')
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ConfigurationError(f'channels are {self.channels}, must be four positive numbers')
        if self.map_width < 2 or self.map_width % 2:
            raise ConfigurationError(f'map_width is {self.map_width}, must be even')
        for name in ('width', 'hypotheses'):
            if getattr(self, name) < 1:
                raise ConfigurationError(f'{name} is {getattr(self, name)}, must be at least 1')


class Hypotheses(NamedTuple):
    """K right hands for each of B masks, in the cameras of their crops."""

    rotations: Tensor  #: (B,K,16,3,3) each joint against its parent, the wrist's against the camera first
    betas: Tensor  #: (B,K,10)
    place: Tensor  #: (B,K,3): see ``wrist_position``
    scores: Tensor  #: (B,K) logits of each being the right one
    log_variance: Tensor  #: (B,K,21) of each keypoint's aligned error, square centimetres; not calibrated
    landmarks: Tensor  #: (B,21,3) keypoints in the crop, -1..1, and depth behind the wrist in half sides
    heatmaps: Tensor  #: (B,21,P) logits of where in the maps at stride 8 the keypoints are
    seen: Tensor  #: (B,1+16+1,M,M) of each place at stride 4: logits of no hand and of joints, and depth

    def chosen(self, which: Tensor) -> Hypotheses:
        """One each, (B,1,...), by number (B,)."""

        def pick(values: Tensor) -> Tensor:
            index = which.view(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
            return values.gather(1, index)

        own = ('rotations', 'betas', 'place', 'scores', 'log_variance')
        return self._replace(**{name: pick(getattr(self, name)) for name in own})


class Mask2Hand(nn.Module):
    """The network."""

    centres: Tensor

    def __init__(self, configuration: Mask2HandConfiguration) -> None:
        """Build it with random weights."""
        super().__init__()
        c = configuration
        self.configuration = c
        self.backbone = import_timm().create_model(
            'resnet18', channels=c.channels, features_only=True, out_indices=(2, 3, 4)
        )
        # Blocks of pixels become channels at once: half of the time would go into a stem of one channel.
        # (T. Ridnik et al., "TResNet: high performance GPU-dedicated architecture", 2021.)
        self.backbone['conv1'] = nn.Conv2d(_STEM_STRIDE**2, _STEM_WIDTH, 3, padding=1, bias=False)
        self.backbone['maxpool'] = nn.Identity()
        self.neck = FeaturePyramid(c.channels[1:], c.map_width)
        self.keypoint_maps = nn.Conv2d(c.map_width, 2 * KEYPOINTS, 1)
        # Nothing of the hand depends on this one: it is what the maps learn most from
        self.seen = nn.Conv2d(c.map_width, _FINER**2 * (JOINTS + 2), 1)
        self.local = nn.Linear(c.map_width, _LOCAL)
        cells = c.image_size // 8
        places = (torch.arange(cells) + 0.5) * (2 / cells) - 1
        down, across = torch.meshgrid(places, places, indexing='ij')
        self.register_buffer('centres', torch.stack([across, down], dim=-1).reshape(-1, 2), persistent=False)
        self.entry = nn.Linear(c.channels[-1] + (3 + _LOCAL) * KEYPOINTS + 1, c.width)
        self.blocks = nn.ModuleList(ResidualBlock(c.width) for _ in range(c.blocks))
        self.norm = nn.LayerNorm(c.width)
        self.hands = nn.Linear(c.width, c.hypotheses * (JOINTS * _SIX + BETAS + _PLACE))
        self.scores = nn.Linear(c.width, c.hypotheses)
        self.log_variance = nn.Linear(c.width, c.hypotheses * KEYPOINTS)
        with torch.no_grad():  # begins near no rotation
            self.hands.weight.mul_(0.1)
            bias = 0.05 * torch.randn(c.hypotheses, JOINTS * _SIX + BETAS + _PLACE)
            bias[:, : JOINTS * _SIX].view(-1, JOINTS, _SIX)[:, :, [0, 4]] += 1.0
            self.hands.bias.copy_(bias.flatten())
        # Twice as fast on a CPU; torch's annotations do not have this form
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, masks: Tensor, half_sides: Tensor) -> Hypotheses:
        """Hands of masks (B,1,S,S) float, 0..1, in crops of focal lengths (B,), in half sides."""
        blocks = pixel_unshuffle(masks, _STEM_STRIDE)
        maps = self.backbone(blocks.contiguous(memory_format=torch.channels_last))
        pooled = maps[-1].float().mean(dim=(2, 3))
        finest = self.neck(maps)[0]
        seen = pixel_shuffle(self.seen(finest), _FINER).float()
        heatmaps, depths = self.keypoint_maps(finest).flatten(2).split(KEYPOINTS, dim=1)
        with torch.autocast(masks.device.type, enabled=False):
            heatmaps, depths = heatmaps.float(), depths.float()
            depth = (heatmaps.softmax(dim=-1) * depths).sum(dim=-1, keepdim=True)
            landmarks = torch.cat([image_keypoints(heatmaps, self.centres), depth], dim=-1)
            camera = (half_sides.log() - _HALF_SIDE_MEAN) / _HALF_SIDE_DEVIATION
            local = self.local(finest.float().flatten(2).transpose(1, 2))
            shape = (finest.shape[2], finest.shape[3])
            at_keypoints = sample_bilinear(local, shape, (landmarks[..., :2].detach() + 1) / 2)
        x = self.entry(
            torch.cat([pooled, landmarks.flatten(1), at_keypoints.flatten(1), camera[:, None]], dim=1)
        )
        for block in self.blocks:
            x = block(x)
        with torch.autocast(masks.device.type, enabled=False):
            x = self.norm(x.float())
            count = self.configuration.hypotheses
            numbers, betas, place = (
                self.hands(x).unflatten(1, (count, -1)).split([JOINTS * _SIX, BETAS, _PLACE], dim=2)
            )
            return Hypotheses(
                rotations=matrices_from_six(numbers.unflatten(2, (JOINTS, _SIX))),
                betas=betas,
                place=place,
                scores=self.scores(x),
                # Of this head alone: what it looks at does not change for its sake
                log_variance=self.log_variance(x.detach()).unflatten(1, (count, KEYPOINTS)).clamp(-6, 6),
                landmarks=landmarks,
                heatmaps=heatmaps,
                seen=seen,
            )


def wrist_position(place: Tensor, half_sides: Tensor) -> Tensor:
    """Where a wrist is (...,3), metres, of what the network says of it (...,3): x and y in the crop, -1..1,
    and the logarithm of its distance against what is usual in crops of focal lengths (...), half sides."""
    depth = _DEPTH_PER_HALF_SIDE * half_sides * place[..., 2].clamp(-3, 3).exp()
    return torch.cat([place[..., :2] * (depth / half_sides)[..., None], depth[..., None]], dim=-1)


def posed_hands(layer: HandLayer, hands: Hypotheses, half_sides: Tensor) -> HandLayerOutput:
    """The hands (B*K,...) of hypotheses, in metres in the frames of their crops' cameras."""
    count = hands.betas.shape[1]
    rotations, betas, place = (t.flatten(0, 1) for t in (hands.rotations, hands.betas, hands.place))
    posed = layer.from_rotations(rotations, betas, torch.zeros_like(place))
    moved = wrist_position(place, half_sides.repeat_interleave(count)) - posed.keypoints[:, 0]
    return HandLayerOutput(*(points + moved[:, None] for points in posed))


def describe(network: Mask2Hand, hand_model: dict[str, str]) -> dict[str, Any]:
    """What a file of weights says of its network; ``load_mask2hand`` reads it."""
    return {
        'network': NETWORK_NAME,
        'configuration': asdict(network.configuration),
        'hand_model': hand_model,
    }


def load_mask2hand(path: Path = MASK2HAND_PATH) -> tuple[Mask2Hand, dict[str, Any]]:
    """The network of a file that ``hand-mesh train mask2hand`` wrote, on the CPU, for inference.

    With it comes the file's description: ``calibration`` holds the ``offset`` a and ``slope`` b of
    confidence = sigmoid(a - b log_variance); 0 and 1 where the file has none.

    :raises FileFormatError: the file is missing, damaged or holds another network.
    """
    weights, description = load_weights(path)
    try:
        if description['network'] != NETWORK_NAME:
            raise ValueError(f'a {description["network"]} network')
        sizes = dict(description['configuration'])
        sizes['channels'] = tuple(sizes['channels'])
        configuration = Mask2HandConfiguration(**sizes)
        network = built(lambda: Mask2Hand(configuration), weights)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigurationError) as error:
        raise FileFormatError(f'{path}: not the weights of a Mask2Hand network: {error}') from error
    description.setdefault('calibration', {'offset': 0.0, 'slope': 1.0})
    return network.eval().requires_grad_(False), description
