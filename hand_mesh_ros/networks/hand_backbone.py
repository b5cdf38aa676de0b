"""MediaPipe's hand landmark network in two halves: a backbone for timm, and the head that reads hands."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: Name of the backbone, to timm. Its weights come from ``training.pretrained``.
HAND_BACKBONE = 'mediapipe_hand'

#: Side in pixels of the crops that the weights were learned on.
_CROP_PX = 224

#: Channels of the backbone's last map, and of what the head makes of it.
_LAST_CHANNELS, _FEATURES = 192, 1152

#: MediaPipe divides the network's depths by that, after which they are in pixels as places are: its
#: hand_landmark_cpu.pbtxt, normalize_z.
_DEPTH_SHARE = 0.4

#: In the language of timm, stage by stage: repeats, kernel, stride, expansion, channels.
_STAGES = [
    ['ds_r1_k3_s1_e1_c16'],
    ['ir_r1_k3_s2_e4_c24', 'ir_r1_k3_s1_e6_c24'],
    ['ir_r2_k5_s2_e6_c40'],
    ['ir_r3_k3_s2_e6_c80'],
    ['ir_r3_k5_s1_e6_c112'],
    ['ir_r4_k5_s2_e6_c192'],
]

#: Where timm looks for what the model of that name expects: RGB 0..1 as it is.
default_cfgs = {
    HAND_BACKBONE: {
        'num_classes': 0,
        'input_size': (3, _CROP_PX, _CROP_PX),
        'mean': (0.0,) * 3,
        'std': (1.0,) * 3,
    }
}


class HandLook(NamedTuple):
    """What the network says of B crops, as of hands that face a camera far away. Float32.

    ``cues.Cues`` says more of keypoints, relative depth and world.
    """

    features: Tensor  #: (B,1152), all that the others are linear functions of
    keypoints: Tensor  #: (B,21,2), -1..1 over the crop
    relative_depth: Tensor  #: (B,21), behind the wrist, in half sides of the crop
    world: Tensor  #: (B,21,3), from the wrist, crop's axes, unit RMS distance from their own mean
    presence: Tensor  #: (B,) logit: that the crop shows a hand
    handedness: Tensor  #: (B,) logit: positive for a right hand, the person's own, negative for a left one


class HandHead(nn.Module):
    """Reads hands from the last map of the backbone.

    The picture should show one hand, upright and with some margin. Sides are those of the picture as it is:
    the mirror image of a left hand is a right one.
    """

    def __init__(self) -> None:
        """Build the layers in the order of MediaPipe's file, with random weights."""
        super().__init__()
        self.expansion = nn.Conv2d(_LAST_CHANNELS, _FEATURES, 1)
        self.depthwise = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1, groups=_FEATURES)
        self.activation = nn.ReLU6()
        self.handedness = nn.Linear(_FEATURES, 1)
        self.presence = nn.Linear(_FEATURES, 1)
        self.landmarks = nn.Linear(_FEATURES, 63)
        self.world = nn.Linear(_FEATURES, 63)

    def forward(self, last_map: Tensor) -> HandLook:
        """Hands in B crops, of the backbone's map (B,192,h,w) float at stride 32."""
        maps = self.activation(self.depthwise(self.activation(self.expansion(last_map))))
        with torch.autocast(maps.device.type, enabled=False):  # bfloat16 knows whole pixels only
            features = maps.float().mean(dim=(2, 3))
            # Pixels that count from the upper left corner of the crop, not from the middle of a pixel
            landmarks = self.landmarks(features).unflatten(1, (21, 3)) / (_CROP_PX / 2)
            depth = landmarks[..., 2] / _DEPTH_SHARE
            return HandLook(
                features=features,
                keypoints=landmarks[..., :2] - 1,
                relative_depth=depth - depth[:, :1],
                world=_normalised(self.world(features).unflatten(1, (21, 3))),
                presence=self.presence(features)[:, 0],
                handedness=self.handedness(features)[:, 0],
            )


def register(timm: ModuleType) -> None:
    """Make the backbone known to ``timm`` as ``HAND_BACKBONE``; again does nothing."""
    if not timm.is_model(HAND_BACKBONE):
        timm.models.register_model(mediapipe_hand)


def mediapipe_hand(pretrained: bool = False, **options: Any) -> nn.Module:
    """Timm's EfficientNet in the shape of MediaPipe's backbone. Timm calls it, and knows it by this name."""
    builder = import_module('timm.models._efficientnet_builder')
    efficientnet = import_module('timm.models.efficientnet')
    return efficientnet._create_effnet(
        HAND_BACKBONE,
        pretrained,
        block_args=builder.decode_arch_def(_STAGES),
        num_features=0,
        stem_size=24,
        act_layer=nn.ReLU6,
        pad_type='same',
        **options,
    )


def _normalised(world: Tensor) -> Tensor:
    """``cues.normalised_world`` of points (B,21,3)."""
    offsets = world - world.mean(dim=1, keepdim=True)
    size = offsets.square().sum(dim=2).mean(dim=1).sqrt()
    return (world - world[:, :1]) / size[:, None, None]
