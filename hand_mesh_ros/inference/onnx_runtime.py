"""Graphs run by ONNX Runtime: on the CPU, and on an NVIDIA GPU where its build can."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hand_mesh_ros.errors import FileFormatError

#: ONNX Runtime's level of log messages that are errors; it tells of errors by exceptions, too.
_ERRORS = 3


class OnnxRuntimeRunner:
    """A :class:`~hand_mesh_ros.inference.graph.GraphRunner`.

    On the CPU, of two or more hands two halves are run at a time, each by a thread of its own; and one hand
    leaves a thread to them. These networks are many small operators: threads that share each of them wait for
    each other, and busily, most of the time, which with two threads makes one hand no faster, and everything
    else slower.
    """

    backend = 'onnxruntime'

    def __init__(self, paths: Sequence[Path], threads: int = 0, device: str = 'auto') -> None:
        """Load graphs.

        :param paths: of the graphs, in the order in which they run; their weights lie beside them.
        :param threads: that may work at a time; 0 for one each core.
        :param device: ``cpu``; ``cuda``; ``auto`` takes a GPU where this build of ONNX Runtime has one.
        :raises FileFormatError: a graph, or the file of its weights, that is missing or damaged.
        """
        threads = threads or len(os.sched_getaffinity(0))
        providers = _providers(device)
        self._sessions = [_session(path, max(threads - 1, 1), providers) for path in paths]
        self.device = _device_of(self._sessions[0])
        takes_any_batch = all(isinstance(g.shape[0], str) for s in self._sessions for g in s.get_inputs())
        in_halves = threads > 1 and takes_any_batch and self.device == 'CPU'
        self._other_half = ThreadPoolExecutor(1, 'onnxruntime_half') if in_halves else None
        self._inputs = [[given.name for given in session.get_inputs()] for session in self._sessions]
        self._outputs = [[told.name for told in session.get_outputs()] for session in self._sessions]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        half = len(inputs[self._inputs[0][0]]) // 2
        if self._other_half is None or half == 0:
            return self._run(inputs)
        later = self._other_half.submit(self._run, {name: array[half:] for name, array in inputs.items()})
        try:
            first = self._run({name: array[:half] for name, array in inputs.items()})
        finally:
            wait([later])
        second = later.result()
        return {name: np.concatenate([array, second[name]]) for name, array in first.items()}

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        known: dict[str, Any] = dict(inputs)
        for session, names, told in zip(self._sessions, self._inputs, self._outputs, strict=True):
            given = session.run(told, {name: known[name] for name in names})
            known |= zip(told, given, strict=True)
        return {name: known[name] for name in self._outputs[-1]}

    def close(self) -> None:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        self._sessions = []
        if self._other_half is not None:
            self._other_half.shutdown()


def _providers(device: str) -> list[str]:
    has_cuda = 'CUDAExecutionProvider' in onnxruntime.get_available_providers()
    on_gpu = ['CUDAExecutionProvider'] if device == 'cuda' or (device == 'auto' and has_cuda) else []
    return [*on_gpu, 'CPUExecutionProvider']


def _session(path: Path, threads: int, providers: list[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
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
