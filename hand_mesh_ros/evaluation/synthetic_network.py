"""MaskHand as a method of the synthetic test; needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hand_mesh_ros.evaluation.calibration import calibrated_confidence
from hand_mesh_ros.evaluation.scores import UNKNOWN, Points
from hand_mesh_ros.evaluation.synthetic import CropHand, CropMethod
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.maskhand import MaskHand, load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.skeleton_graph import HandCues

#: Whether a row looks at keypoints, relative depth, world landmarks.
_ABLATIONS = {
    'maskhand-no-world': (True, True, False),
    'maskhand-no-depth': (True, False, True),
    'maskhand-2d-only': (True, False, False),
    'maskhand-no-cues': (False, False, False),
}


class Sight:
    """What a network's backbone sees in a batch of crops: the same for all rows of the table."""

    def __init__(self, network: MaskHand) -> None:
        self.network = network
        self._crops: np.ndarray | None = None
        self._seen: list[Tensor] = []

    @torch.inference_mode()
    def of(self, crops: np.ndarray, device: torch.device) -> list[Tensor]:
        """See ``MaskHand.see``; crops (B,S,S,3) uint8 RGB. Asked again of the same array, it remembers."""
        if crops is not self._crops:
            images = torch.as_tensor(crops).to(device).permute(0, 3, 1, 2).float() / 255.0
            self._crops, self._seen = crops, self.network.see(images)
        return self._seen


class MaskHandOnCrops:
    """MaskHand as it is asked for in one row of the table."""

    def __init__(
        self,
        sight: Sight,
        layer: HandLayer,
        calibration: Mapping[str, float],
        *,
        steps: int,
        use_image: bool = True,
        cues: Sequence[bool] = (True, True, True),
    ) -> None:
        """Prepare a row.

        :param sight: of the network.
        :param calibration: ``offset`` and ``slope`` of confidence over log-variance.
        :param cues: whether keypoints, relative depth and world landmarks are looked at.
        """
        self._sight, self._layer, self._calibration = sight, layer, calibration
        self.image_size: int | None = sight.network.configuration.image_size
        self._steps, self._use_image, self._cues = steps, use_image, np.asarray(cues)

    def reconstruct(self, batch: Mapping[str, np.ndarray]) -> list[CropHand | None]:
        """See ``synthetic.CropMethod``."""
        cues = _cues(batch, self._cues, self._layer)
        seen = self._sight.of(batch['image'], cues.present.device)
        found = predict(
            self._sight.network, self._layer, seen, cues, steps=self._steps, use_image=self._use_image
        )
        log_variance = found.log_variance.double().cpu().numpy()
        figures = _figures(self._layer, found.rotations, found.betas)
        return [
            CropHand(figure, calibrated_confidence(of_joints, **self._calibration))
            for figure, of_joints in zip(figures, log_variance, strict=True)
        ]


class LifterOnCrops:
    """The pose that MaskHand's lifter takes the cues for, before image and transformer."""

    image_size = None

    def __init__(self, network: MaskHand, layer: HandLayer) -> None:
        self._lifter, self._layer = network.lifter, layer

    @torch.inference_mode()
    def reconstruct(self, batch: Mapping[str, np.ndarray]) -> list[CropHand | None]:
        """See ``synthetic.CropMethod``."""
        lifted = self._lifter(_cues(batch, np.ones(3, bool), self._layer))
        return [CropHand(figure, UNKNOWN) for figure in _figures(self._layer, lifted.rotations, lifted.betas)]


def _cues(batch: Mapping[str, np.ndarray], used: np.ndarray, layer: HandLayer) -> HandCues:
    """The cues of a batch, on the layer's device, without the kinds that are not ``used`` (3,) bool."""
    device = layer.v_template.device
    names = ('keypoints', 'confidence', 'relative_depth', 'world')
    return HandCues(
        **{name: torch.as_tensor(batch[f'cue_{name}']).to(device) for name in names},
        present=torch.as_tensor(batch['cue_present'] & used).to(device),
    )


def _figures(layer: HandLayer, rotations: Tensor, betas: Tensor) -> list[Points]:
    """Hands of rotations (B,16,3,3) and betas (B,10), from their wrist keypoints."""
    posed = layer.from_rotations(rotations, betas, torch.zeros_like(betas[:, :3]))
    joints, vertices = (t.double().cpu().numpy() for t in (posed.keypoints, posed.vertices))
    root = joints[:, :1]
    return [Points(*hand) for hand in zip(joints - root, vertices - root, strict=True)]


def maskhand_rows(path: Path, model: HandModel, steps: Sequence[int]) -> dict[str, CropMethod]:
    """The rows of the network in ``path``.

    One for each number of ``steps``; then its lifter alone; then, with the last of the steps, the network
    without its image, and without some of the cues or all.

    :raises FileFormatError: no weights of MaskHand.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    network, description = load_maskhand(path)
    network = network.to(device).eval()
    layer = HandLayer(model).to(device)
    calibration, sight = description['calibration'], Sight(network)

    def row(**options: Any) -> MaskHandOnCrops:
        return MaskHandOnCrops(sight, layer, calibration, **options)

    rows: dict[str, CropMethod] = {f'maskhand-t{count}': row(steps=count) for count in steps}
    rows['maskhand-lifter'] = LifterOnCrops(network, layer)
    rows['maskhand-no-image'] = row(steps=steps[-1], use_image=False)
    rows |= {name: row(steps=steps[-1], cues=cues) for name, cues in _ABLATIONS.items()}
    return rows
