"""What every engine that runs exported graphs can do: arrays by name in, arrays by name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class GraphRunner(Protocol):
    """A chain of ONNX graphs, loaded and ready. Not thread-safe.

    They run one after the other. What one gives and a later one takes by the same name stays where it is, in
    the memory of the device.
    """

    backend: str  #: what runs them: "onnxruntime" or "tensorrt"
    device: str  #: where, e.g. "CPU" or the name of a GPU

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of the last graph, by name, which stay as they are when it runs again.

        :param inputs: what no graph of the chain gives, by name; contiguous, of the types that the graphs
            declare, the hands of a batch (1 or more) first.
        """
        ...

    def close(self) -> None:
        """Give the device's memory back; the runner cannot be used after."""
        ...
