"""What the description of a network says to those who run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.inference.graph_files import sha256_of

#: The backbone that comes with a head that reads hands: ``networks.hand_backbone``, which needs PyTorch.
HAND_BACKBONE = 'mediapipe_hand'

#: The largest side of crops that is believed, pixels: what is cut out for a network grows with its square.
_MAX_IMAGE_SIZE = 2048


@dataclass(frozen=True)
class NetworkFile:
    """A file of weights and its description, checked."""

    sha256: str  #: of the file, hexadecimal
    image_size: int  #: side of the crops, pixels
    hand_model_hash: str  #: SHA-256 of the hand model that the network learned on
    calibration: tuple[float, float]  #: offset a and slope b of confidence = sigmoid(a - b log_variance)
    finds_hands: bool = False  #: it reads the hand in a crop without a detector's landmarks, by its backbone

    @classmethod
    def described(cls, weights: Path, description: Mapping[str, Any]) -> NetworkFile:
        """Of a file and what is said of it, in it or in its graphs.

        :raises FileFormatError: the description lacks what is needed, or that is not of its kind.
        """
        try:
            calibration = description.get('calibration', {'offset': 0.0, 'slope': 1.0})
            offset, slope = float(calibration['offset']), float(calibration['slope'])
            if not math.isfinite(offset + slope):  # JSON's NaN would come out as confidence
                raise ValueError(f'calibration is {calibration}')
            image_size = int(description['configuration']['image_size'])
            if not 1 <= image_size <= _MAX_IMAGE_SIZE:
                raise ValueError(f'image_size is {image_size}')
            return cls(
                sha256=sha256_of(weights),
                image_size=image_size,
                hand_model_hash=str(description['hand_model']['sha256']),
                calibration=(offset, slope),
                finds_hands=description['configuration'].get('backbone') == HAND_BACKBONE,
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise FileFormatError(f'{weights}: its description cannot be used: {error!r}') from error
