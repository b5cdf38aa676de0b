"""What the description in a file of weights says to the backends that run them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from hand_mesh_ros.errors import FileFormatError


class LoadedFile:
    """A file of weights and its description, checked."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        """Read the description.

        :raises FileFormatError: it lacks what a backend needs, or that is not of its kind.
        """
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        try:
            calibration = description['calibration']
            #: offset a and slope b of confidence = sigmoid(a - b log_variance)
            self.calibration = float(calibration['offset']), float(calibration['slope'])
            if not math.isfinite(sum(self.calibration)):  # JSON's NaN would come out as confidence
                raise ValueError(f'calibration is {calibration}')
            self.hand_model_hash = str(description['hand_model']['sha256'])
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f'{path}: its description cannot be used: {error!r}') from error
