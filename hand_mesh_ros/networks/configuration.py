"""Size of a MaskHand network."""

from __future__ import annotations

from dataclasses import dataclass

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.networks.hand_backbone import HAND_BACKBONE
from hand_mesh_ros.networks.skeleton_graph import KEYPOINTS

#: The most that is believed of layers behind each other, and of a crop's side in pixels: files say both, and
#: building a network of them takes time, or memory, before its weights can be seen not to fit.
MAX_DEPTH, MAX_IMAGE_SIZE = 64, 1024


@dataclass(frozen=True)
class MaskHandConfiguration:
    """Size of a MaskHand network. The defaults serve a hand in real time on a CPU.

    :raises ConfigurationError: sizes that make no network.
    """

    image_size: int = 224  #: side of the crop, pixels
    backbone: str = HAND_BACKBONE  #: of timm; this one also reads the hand a second time
    strides: tuple[int, ...] = (16, 32)  #: of the maps that the pose attends to
    width: int = 128
    heads: int = 4
    refinement_blocks: int = 1
    synthesizer_blocks: int = 3
    sampling_points: int = 2  #: of each head, query and map
    cue_tokens: int = KEYPOINTS  #: 21, one per keypoint, or 1 for the hand
    graph_width: int = 64
    graph_layers: int = 3
    lifters: tuple[tuple[int, int], ...] = ((512, 5),)  #: width and residual blocks of each

    def __post_init__(self) -> None:
        if self.cue_tokens not in (1, KEYPOINTS):
            raise ConfigurationError(f'cue_tokens is {self.cue_tokens}, must be 1 or {KEYPOINTS}')
        if self.heads < 1 or self.width % self.heads:
            raise ConfigurationError(f'width {self.width} does not split into {self.heads} heads')
        if not self.strides or list(self.strides) != sorted(set(self.strides)) or self.strides[0] < 1:
            raise ConfigurationError(f'strides are {self.strides}, must be positive and grow')
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE or any(
            self.image_size % stride for stride in self.strides
        ):
            raise ConfigurationError(
                f'image_size {self.image_size} is no multiple of {self.strides}, up to {MAX_IMAGE_SIZE}'
            )
        if self.backbone == HAND_BACKBONE and (self.strides[-1], self.image_size) != (32, 224):
            raise ConfigurationError(f'{HAND_BACKBONE} reads crops of 224 pixels, from a map at stride 32')
        if not self.lifters or any(width < 1 or depth < 0 for width, depth in self.lifters):
            raise ConfigurationError(f'lifters are {self.lifters}, must be widths and depths')
        blocks = (self.refinement_blocks, self.synthesizer_blocks, self.graph_layers)
        if max(*blocks, *(depth for _, depth in self.lifters), len(self.lifters)) > MAX_DEPTH:
            raise ConfigurationError(f'more than {MAX_DEPTH} blocks, layers or lifters')
        for name in ('sampling_points', 'graph_width'):
            if getattr(self, name) < 1:
                raise ConfigurationError(f'{name} is {getattr(self, name)}, must be at least 1')

    @classmethod
    def paper(cls) -> MaskHandConfiguration:
        """The paper's ViT-H/16 and one cue token; depth and width are this project's choice."""
        return cls(
            image_size=256,
            backbone='vit_huge_patch16_gap_448',
            strides=(4, 8, 16),
            width=512,
            heads=8,
            sampling_points=4,
            synthesizer_blocks=8,
            cue_tokens=1,
        )
