"""MediaPipe's landmark network as what looks at rendered hands."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hand_mesh_ros.datasets.detected import Look, Looked
from hand_mesh_ros.networks.encoder import ImageEncoder
from hand_mesh_ros.networks.hand_backbone import HAND_BACKBONE, HandHead
from hand_mesh_ros.training.pretrained import load_hand_head, load_pretrained

#: Side of the crops that it looks at.
LOOK_PX = 224

#: Of the map that its head reads.
_STRIDE = 32


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = ImageEncoder(HAND_BACKBONE, LOOK_PX, (_STRIDE,), width=2), HandHead()
        load_pretrained(self.encoder.backbone, HAND_BACKBONE)
        load_hand_head(self.head)


def pretrained_look() -> Look:
    """What ``DetectedHands`` asks; on the CPU.

    :raises ConfigurationError: MediaPipe's package, which has the weights, is not installed.
    """
    network = _Network().eval()

    @torch.inference_mode()
    def look(crops: np.ndarray) -> Looked:
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        said = network.head(network.encoder.see(images)[-1])
        fields = (said.keypoints, said.relative_depth, said.world, said.presence.sigmoid())
        return Looked(*(field.double().numpy() for field in fields))

    return look
