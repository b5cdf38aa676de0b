"""What shape a hand gets of which a network told one."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.vertex_kinematics import lengthening


class LearnedShape:
    """The proportions are the network's, the length is what is asked for.

    No picture tells how large a hand is, so that the length is never the network's. Its betas count only when
    the hand model is what it learned: to another model they mean another hand.
    """

    def __init__(self, model: HandModel, learned_hash: str, hand_length_m: float | None = None) -> None:
        """``hand_length_m``: wrist to tip of the middle finger, hand flat; None for the model's mean hand.

        ``learned_hash`` is the SHA-256 of the hand model that the network learned.

        Raises ConfigurationError when the model cannot take that length.
        """
        self._model = model
        self._knows_shape = model.sha256 == learned_hash
        self._start = np.zeros(10) if hand_length_m is None else model.betas_for_length(hand_length_m)
        self._lengthening = lengthening(model)

    def betas(self, learned: np.ndarray) -> np.ndarray:
        """Betas (10,) of the hand, where the network told ``learned`` (10,)."""
        if not self._knows_shape:
            return self._start
        return self._start + learned - (learned @ self._lengthening) * self._lengthening

    def enlargement(self, learned: np.ndarray) -> float:
        """How many times as long the hand of :meth:`betas` is as what the network had in mind."""
        imagined = learned if self._knows_shape else np.zeros(10)
        return self._model.hand_length(self.betas(learned)) / self._model.hand_length(imagined)
