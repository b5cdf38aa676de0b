"""Graphs run by ONNX Runtime: on the CPU, and on an NVIDIA GPU where its build can."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.inference.graph_files import require_files_beside

#: ONNX Runtime's level of log messages that are errors; it tells of errors by exceptions, too.
_ERRORS = 3


class OnnxRuntimeRunner:
    """A :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""

    backend = 'onnxruntime'

    def __init__(self, paths: Sequence[Path], threads: int = 0, device: str = 'auto') -> None:
        """Load graphs.

        :param paths: of the graphs, in the order in which they run; their weights lie beside them.
        :param threads: that may work at a time; 0 for one each core.
        :param device: ``cpu``; ``cuda``; ``auto`` takes a GPU where this build of ONNX Runtime has one.
        :raises FileFormatError: a graph, or the file of its weights, that is missing or damaged, or
            that is sought elsewhere than beside the graph.
        """
        threads = threads or len(os.sched_getaffinity(0))
        providers = _providers(device)
        self._sessions = [_session(path, threads, providers) for path in paths]
        self.device = _device_of(self._sessions[0])
        self._inputs = [[given.name for given in session.get_inputs()] for session in self._sessions]
        self._outputs = [[told.name for told in session.get_outputs()] for session in self._sessions]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        known: dict[str, Any] = dict(inputs)
        for session, names, told in zip(self._sessions, self._inputs, self._outputs, strict=True):
            given = session.run(told, {name: known[name] for name in names})
            known |= zip(told, given, strict=True)
        return {name: known[name] for name in self._outputs[-1]}

    def close(self) -> None:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        self._sessions = []


def _providers(device: str) -> list[str]:
    has_cuda = 'CUDAExecutionProvider' in onnxruntime.get_available_providers()
    on_gpu = ['CUDAExecutionProvider'] if device == 'cuda' or (device == 'auto' and has_cuda) else []
    return [*on_gpu, 'CPUExecutionProvider']


def _session(path: Path, threads: int, providers: list[str]) -> onnxruntime.InferenceSession:
    require_files_beside(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # These networks are many small operators: threads that sleep in between them are no help, and threads
    # that go on waiting busily after the last take the cores from all else, the next graph included.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    options.log_severity_level = _ERRORS
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of kinds that ONNX Runtime does not name
        raise FileFormatError(
            f'{path}: no graph that ONNX Runtime can load, or its weights are not beside it; hand-mesh '
            f'export makes it anew ({str(error).splitlines()[0]})'
        ) from error


def _device_of(session: onnxruntime.InferenceSession) -> str:
    return 'NVIDIA GPU' if session.get_providers()[0] == 'CUDAExecutionProvider' else 'CPU'
