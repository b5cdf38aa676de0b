"""What a detector said of a hand, and what its own network says of the crop: one set of cues of both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hand_mesh_ros.networks.hand_backbone import HandLook
from hand_mesh_ros.networks.skeleton_graph import CUE_FEATURES, KEYPOINTS, HandCues

#: Numbers of ``MergedCues.disagreement`` for each keypoint.
DISAGREEMENT = 9

#: Of a keypoint: x, y over the crop, relative depth, and place in space.
_PLANE, _DEPTH, _SPACE = slice(0, 2), slice(2, 3), slice(3, 6)

#: Which of a keypoint's three weights is whose, and which of a cue's features says that it is known.
_WEIGHT_OF, _FLAGS = (0, 0, 1, 2, 2, 2), (7, 7, 8, 9, 9, 9)

_WIDTH = 64


class MergedCues(NamedTuple):
    """Cues of B hands from both looks."""

    cues: HandCues
    #: (B,21,9): second look less first, in x, y, depth and space (6), how far in the image and in space, how
    #: sure the second is that there is a hand (a logit); zero without an image.
    disagreement: Tensor


class SecondLook(nn.Module):
    """Means of the cues and of a look at the crop, by weights that are learned.

    A detector looks at a crop that it guessed. With its landmarks known the hand can be cut out better,
    and read again: errors of the two differ, and how much they differ says what they are worth. What is
    learned is whom to believe, not what to add: the errors that a landmark network makes on rendered hands
    are not those that it makes on photographs.
    """

    weight_of: Tensor
    flags: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(CUE_FEATURES + 6 + DISAGREEMENT, _WIDTH), nn.GELU())
        self.keypoint = nn.Parameter(torch.randn(KEYPOINTS, _WIDTH) * 0.02)
        self.all = nn.Sequential(nn.Linear(2 * _WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, 3))
        last = self.all[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # begins with the mean of both
        nn.init.zeros_(last.bias)
        self.register_buffer('weight_of', torch.tensor(_WEIGHT_OF), persistent=False)
        self.register_buffer('flags', torch.tensor(_FLAGS), persistent=False)

    def forward(self, cues: HandCues, look: HandLook, image_present: Tensor) -> MergedCues:
        """The cues of both.

        :param look: at the crops.
        :param image_present: (B,) bool: the cues stay as they are where this is False.
        """
        features = cues.features()
        first = torch.cat([features[..., :2], features[..., 3:7]], dim=-1)
        known = features.index_select(-1, self.flags) > 0
        second = torch.cat([look.keypoints, look.relative_depth[..., None], look.world], dim=-1)
        looked = image_present[:, None, None]
        # Of a hand that no detector has landmarks of, all of the look's are taken. A depth or a place in
        # space that alone is missing stays so: the lifter knows better what to do without.
        unknown = image_present & ~cues.present[:, 0]
        difference = torch.where(known & looked, second - first, 0.0)
        presence = look.presence[:, None, None].expand(-1, KEYPOINTS, 1)
        disagreement = torch.where(
            looked,
            torch.cat(
                [
                    difference,
                    difference[..., _PLANE].norm(dim=-1, keepdim=True),
                    difference[..., _SPACE].norm(dim=-1, keepdim=True),
                    presence,
                ],
                dim=-1,
            ),
            0.0,
        )
        hidden = self.each(torch.cat([features, torch.where(looked, second, 0.0), disagreement], dim=-1))
        hidden = hidden + self.keypoint
        hand = hidden.mean(dim=1, keepdim=True).expand_as(hidden)
        weights = self.all(torch.cat([hidden, hand], dim=-1)).sigmoid()
        weights = torch.where(known, weights.index_select(-1, self.weight_of), 1.0)  # nothing else to believe
        weights = torch.where(looked, weights, 0.0)
        merged = first + weights * torch.where(looked, second - first, 0.0)
        return MergedCues(
            HandCues(
                keypoints=merged[..., _PLANE],
                confidence=torch.lerp(features[..., 2], disagreement[..., -1].sigmoid(), weights[..., 0]),
                relative_depth=merged[..., _DEPTH].squeeze(-1),
                world=merged[..., _SPACE],
                present=cues.present | unknown[:, None],
            ),
            disagreement,
        )
