"""The networks' parts by themselves, for one hand and for two at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hand_mesh_ros.benchmark.timing import ONE_HAND, TWO_HANDS, Times, alternately
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.cues import Cues
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.inference.engine import EngineSettings
from hand_mesh_ros.inference.graph import GraphRunner
from hand_mesh_ros.inference.graph_files import maskhand_graphs
from hand_mesh_ros.inference.graph_networks import hand_network_inputs
from hand_mesh_ros.inference.loading import load_hand_network
from hand_mesh_ros.inference.network import DEFAULT_STEPS, HandNetwork, NetworkOutput
from hand_mesh_ros.networks.shipped import MASKHAND_PATH
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction.maskhand import MaskHandReconstructor

_PARTS = ('encoder', 'decoder')


def maskhand_inputs(
    images: Sequence[np.ndarray], camera: Camera, models: dict[Side, HandModel], settings: EngineSettings
) -> dict[str, np.ndarray]:
    """What MaskHand's graphs are given of the hands in two of ``images`` (H,W,3) uint8 RGB.

    :raises ConfigurationError: no hand is seen in as many of them.
    """
    network = _Watched(load_hand_network(None, DEFAULT_STEPS, settings))
    reconstructor = MaskHandReconstructor(models, network)
    detector = MediaPipeDetector(max_hands=1)
    for image in images:
        reconstructor.reconstruct(Observation(camera, image), detector.detect(image))
        if len(network.cues) >= 2:
            break
    detector.close()
    network.close()
    if len(network.cues) < 2:
        raise ConfigurationError('the frames show a hand in less than two of them: give others (--source)')
    return hand_network_inputs(np.concatenate(network.images)[:2], network.cues[:2])


def part_times(
    inputs: Mapping[str, np.ndarray], settings: EngineSettings, warm_up: int, repeats: int
) -> Times:
    """Stages ``encoder``, ``decoder`` and ``ONE_HAND``, of the first hand of ``inputs``; ``TWO_HANDS``, of
    both at once."""
    one = {name: array[:1] for name, array in inputs.items()}
    runners = [_runner(settings, slice(number, number + 1)) for number in range(len(_PARTS))]
    between = {**one, **runners[0].run(one)}
    times = alternately(
        {
            name: lambda runner=runner: runner.run(between)  # type: ignore[misc]
            for name, runner in zip(_PARTS, runners, strict=True)
        },
        warm_up,
        repeats,
    )
    for runner in runners:
        runner.close()
    whole = _runner(settings, slice(None))
    both = alternately(
        {ONE_HAND: lambda: whole.run(one), TWO_HANDS: lambda: whole.run(inputs)},
        warm_up,
        repeats,
    )
    whole.close()
    times.ms |= both.ms
    return times


def _runner(settings: EngineSettings, parts: slice) -> GraphRunner:
    """Of some of MaskHand's parts."""
    if settings.backend == 'torch':
        from hand_mesh_ros.inference.torch_parts import maskhand_parts
        from hand_mesh_ros.inference.torch_runner import TorchRunner

        return TorchRunner(maskhand_parts(MASKHAND_PATH, DEFAULT_STEPS)[0][parts], settings.threads)
    graphs: Sequence[Path] = maskhand_graphs(MASKHAND_PATH, DEFAULT_STEPS)
    graphs = graphs[parts]
    if settings.backend == 'onnxruntime':
        from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(graphs, settings.threads)
    from hand_mesh_ros.inference.tensorrt_engines import tensorrt_runner

    return tensorrt_runner(graphs, settings.precision, settings.build)


class _Watched:
    """A network that keeps what it is given."""

    def __init__(self, network: HandNetwork) -> None:
        self._network = network
        self.backend, self.device, self.image_size = network.backend, network.device, network.image_size
        self.finds_hands = network.finds_hands
        self.weights_hash, self.hand_model_hash = network.weights_hash, network.hand_model_hash
        self.images: list[np.ndarray] = []
        self.cues: list[Cues] = []

    def infer(self, images: np.ndarray, cues: Sequence[Cues]) -> tuple[NetworkOutput, ...]:
        """See :class:`~hand_mesh_ros.inference.network.HandNetwork`."""
        self.images.append(images)
        self.cues += cues
        return self._network.infer(images, cues)

    def close(self) -> None:
        """See :class:`~hand_mesh_ros.inference.network.HandNetwork`."""
        self._network.close()
