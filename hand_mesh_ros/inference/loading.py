"""A network from its file, run by the best of what there is to run it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError, EngineError
from hand_mesh_ros.inference.engine import BACKENDS, HOW_TO_INSTALL, EngineSettings, missing
from hand_mesh_ros.inference.graph import GraphRunner
from hand_mesh_ros.inference.graph_files import (
    checked_description,
    embedded_metadata,
    maskhand_graphs,
    single_graph,
)
from hand_mesh_ros.inference.graph_networks import (
    GraphHandNetwork,
    GraphSilhouetteNetwork,
    GraphSilhouetteRefinement,
)
from hand_mesh_ros.inference.network import (
    MAX_STEPS,
    MIN_STEPS,
    HandNetwork,
    SilhouetteNetwork,
    SilhouetteRefinement,
)
from hand_mesh_ros.inference.weights_file import NetworkFile
from hand_mesh_ros.networks.shipped import MASK2HAND_PATH, MASKHAND_PATH, REFINE_NET_PATH

_logger = logging.getLogger(__name__)

#: What an engine gives: the network, running, and what is known of its file.
_Opened = tuple[GraphRunner, NetworkFile]


def load_hand_network(
    weights: Path | None, steps: int, settings: EngineSettings | None = None, use_image: bool = True
) -> HandNetwork:
    """MaskHand, ready to run.

    :param weights: a file that ``hand-mesh train maskhand`` wrote; None for that of the package.
    :param steps: iterations of the sampling, 1 to 16.
    :param settings: of the engine; None lets it be chosen.
    :param use_image: False lets the network do with what the detector says; that is for PyTorch alone.
    :raises ConfigurationError: a number out of range, an engine that does not work here, or a package
        without weights.
    :raises FileFormatError: a file of weights, or a graph, that is none.
    """
    if not MIN_STEPS <= steps <= MAX_STEPS:
        raise ConfigurationError(f'sampling_steps must be within {MIN_STEPS} to {MAX_STEPS}, got {steps}')
    file = _weights_of('maskhand', weights, MASKHAND_PATH)
    settings = settings or EngineSettings()
    if not use_image:
        settings = EngineSettings('torch', threads=settings.threads)

    def by_torch() -> _Opened:
        from hand_mesh_ros.inference.torch_parts import maskhand_parts
        from hand_mesh_ros.inference.torch_runner import TorchRunner

        parts, known, _ = maskhand_parts(file, steps, use_image)
        return TorchRunner(parts, settings.threads), known

    return GraphHandNetwork(*_opened(file, maskhand_graphs(file, steps), by_torch, settings))


def load_silhouette_network(
    weights: Path | None, settings: EngineSettings | None = None
) -> SilhouetteNetwork:
    """Mask2Hand, ready to run.

    :param weights: a file that ``hand-mesh train mask2hand`` wrote; None for that of the package.
    :param settings: of the engine; None lets it be chosen.
    :raises ConfigurationError: an engine that does not work here, or a package without weights.
    :raises FileFormatError: a file of weights, or a graph, that is none.
    """
    file = _weights_of('mask2hand', weights, MASK2HAND_PATH)
    settings = settings or EngineSettings()

    def by_torch() -> _Opened:
        from hand_mesh_ros.inference.torch_parts import mask2hand_parts
        from hand_mesh_ros.inference.torch_runner import TorchRunner

        parts, known, _ = mask2hand_parts(file)
        return TorchRunner(parts, settings.threads), known

    return GraphSilhouetteNetwork(*_opened(file, single_graph(file), by_torch, settings))


def load_silhouette_refinement(
    weights: Path | None, settings: EngineSettings | None = None
) -> SilhouetteRefinement:
    """The network that refines Mask2Hand's meshes, ready to run.

    :param weights: a file that ``hand-mesh train mask2hand-refinement`` wrote; None for that of the package.
    :param settings: of the engine; None lets it be chosen.
    :raises ConfigurationError: an engine that does not work here, or a package without weights.
    :raises FileFormatError: a file of weights, or a graph, that is none.
    """
    if weights is None and not REFINE_NET_PATH.is_file():
        raise ConfigurationError(
            f'the refinement of mask2hand needs weights, and {REFINE_NET_PATH} is missing: give a file of '
            'yours, as hand-mesh train mask2hand-refinement writes it, or do without'
        )
    file, settings = weights or REFINE_NET_PATH, settings or EngineSettings()

    def by_torch() -> _Opened:
        from hand_mesh_ros.inference.torch_parts import refinement_parts
        from hand_mesh_ros.inference.torch_runner import TorchRunner

        parts, known, _ = refinement_parts(file)
        return TorchRunner(parts, settings.threads), known

    return GraphSilhouetteRefinement(*_opened(file, single_graph(file), by_torch, settings))


def _weights_of(method: str, weights: Path | None, shipped: Path) -> Path:
    if weights is None and not shipped.is_file():
        raise ConfigurationError(
            f'method {method} needs weights, and {shipped} is missing: give a file of yours '
            '(--weights FILE; parameter weights_path:=FILE), or choose method fit (--method fit; parameter '
            'method:=fit), which needs none'
        )
    return weights or shipped


def _opened(
    weights: Path, graphs: Sequence[Path], by_torch: Callable[[], _Opened], settings: EngineSettings
) -> _Opened:
    """The network of ``weights`` by the engine that is asked for, or by the first that works."""
    if settings.backend != 'auto':
        return _opened_by(settings.backend, weights, graphs, by_torch, settings)
    reasons = []
    level = logging.INFO
    for backend in BACKENDS[1:]:
        try:
            opened = _opened_by(backend, weights, graphs, by_torch, settings)
        except (ConfigurationError, EngineError) as error:
            reasons.append(str(error))
            if isinstance(error, EngineError):  # it is there, and failed: nobody may notice that all is slow
                level = logging.WARNING
            continue
        passed_over = f' ({"; ".join(reasons)})' if reasons else ''
        _logger.log(level, '%s runs on %s, %s%s', weights.name, backend, opened[0].device, passed_over)
        return opened
    raise ConfigurationError(f'nothing here runs {weights.name}: {"; ".join(reasons)}')


def _opened_by(
    backend: str,
    weights: Path,
    graphs: Sequence[Path],
    by_torch: Callable[[], _Opened],
    settings: EngineSettings,
) -> _Opened:
    lacking = missing(backend)
    if lacking:
        raise ConfigurationError(f'backend {backend}: {lacking}')
    try:
        return by_torch() if backend == 'torch' else _opened_graphs(backend, weights, graphs, settings)
    except ImportError as error:  # what is installed does not load
        raise ConfigurationError(f'backend {backend}: {HOW_TO_INSTALL[backend]} ({error})') from error


def _opened_graphs(backend: str, weights: Path, graphs: Sequence[Path], settings: EngineSettings) -> _Opened:
    for graph in graphs:
        if not graph.is_file():
            raise ConfigurationError(
                f'backend {backend} needs {graph}, which hand-mesh export --weights {weights} writes (for '
                'more than one iteration of the sampling, with --iterations)'
            )
    descriptions = [checked_description(graph, embedded_metadata(graph), weights) for graph in graphs]
    for graph, description in zip(graphs, descriptions, strict=True):
        if description.get('batch'):
            raise ConfigurationError(
                f'backend {backend}: {graph} takes batches of {description["batch"]} hands only: '
                f'make it anew with hand-mesh export --weights {weights}, without --batch'
            )
    file = NetworkFile.described(weights, descriptions[-1])
    if backend == 'onnxruntime':
        from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(graphs, settings.threads), file
    from hand_mesh_ros.inference.tensorrt_engines import tensorrt_runner

    return tensorrt_runner(graphs, settings.precision, settings.build), file
