"""Whether an engine computes what its graph does: the same inputs through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.errors import ConfigurationError, EngineError, FileFormatError
from hand_mesh_ros.hand_model.rotations import rotation_matrices

_SEED = 20250117

#: Hands from which the batches to compare are taken.
_HANDS = 16

#: Outputs that are axis-angles: the same rotation near pi has two, so that rotations are compared.
_ROTATIONS = ('global_orient', 'hand_pose')

_DTYPES = {
    'tensor(float)': np.float32,
    'tensor(float16)': np.float16,
    'tensor(uint8)': np.uint8,
    'tensor(int64)': np.int64,
    'tensor(int32)': np.int32,
    'tensor(bool)': np.bool_,
}

#: Ranges of inputs by name, uniform; others are normal, of mean 0 and deviation 0.5.
_RANGES = {'confidence': (0.2, 1.0), 'half_sides': (4.0, 12.0), 'keypoints': (-0.9, 0.9)}


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be off."""

    error: float  #: of numbers, as a share of their output's range
    numbers_beyond: float  #: share of an output's numbers that may be further off than that
    others_beyond: float  #: share of an output's integers and truth values that may differ


#: Half precision has eleven bits, so a token or an attention that is all but undecided may go the other way
#: and move a few of the numbers further.
TOLERANCES = {'fp32': Tolerance(1e-3, 0.0, 0.005), 'fp16': Tolerance(2e-2, 0.02, 0.05)}


@dataclass(frozen=True, eq=False)
class Case:
    """What a graph is given, and what it gives then, by name."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Deviation:
    """One output of an engine against its graph, for one batch."""

    output: str
    batch: int
    error: float  #: largest, as a share of the output's range; of integers the share that differs
    beyond: float  #: share of the numbers that are further off than the tolerance
    accepted: bool


def reference_cases(
    graphs: Sequence[Path], batches: Sequence[int], inputs: Mapping[str, np.ndarray] | None = None
) -> list[dict[int, Case]]:
    """For every graph of a chain the case of each batch, computed by ONNX Runtime on the CPU in float32.

    :param inputs: of the chain, as many hands as the largest batch or more; None for plausible ones, always
        the same.
    :raises ConfigurationError: ONNX Runtime is not installed.
    :raises FileFormatError: a graph that ONNX Runtime cannot load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            f'engines are compared with ONNX Runtime: pip install onnxruntime ({error})'
        ) from error
    generator = np.random.default_rng(_SEED)
    known: dict[int, dict[str, np.ndarray]] = {batch: {} for batch in batches}
    cases = []
    for graph in graphs:
        try:
            session = onnxruntime.InferenceSession(str(graph), providers=['CPUExecutionProvider'])
        except Exception as error:  # of kinds that ONNX Runtime does not name
            raise FileFormatError(f'{graph}: ONNX Runtime cannot load it: {error}') from error
        for given in session.get_inputs():
            if all(given.name in values for values in known.values()):
                continue
            if inputs is not None:
                array = inputs[given.name]
            else:
                array = _plausible(generator, given.name, given.type, tuple(given.shape[1:]))
            for batch, values in known.items():
                values[given.name] = np.ascontiguousarray(array[:batch])
        names = [told.name for told in session.get_outputs()]
        of_graph = {}
        for batch, values in known.items():
            taken = {given.name: values[given.name] for given in session.get_inputs()}
            told = dict(zip(names, session.run(names, taken), strict=True))
            of_graph[batch] = Case(taken, told)
            values.update(told)
        cases.append(of_graph)
    return cases


def deviations(
    run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    cases: Mapping[int, Case],
    precision: str,
) -> list[Deviation]:
    """How far ``run`` is from each case, and whether that is accepted of the precision."""
    found = []
    for batch, case in cases.items():
        told = run(case.inputs)
        for name, expected in case.outputs.items():
            found.append(_deviation(name, batch, expected, told[name], TOLERANCES[precision]))
    return found


def require_accepted(found: Sequence[Deviation], what: str) -> None:
    """Nothing, where all are accepted.

    :raises EngineError: some are not; it names the worst.
    """
    refused = [deviation for deviation in found if not deviation.accepted]
    if refused:
        worst = max(refused, key=lambda deviation: (deviation.beyond, deviation.error))
        raise EngineError(
            f'{what}: the engine does not compute what its graph does, and is not used: output '
            f'{worst.output} at batch {worst.batch} is off by {worst.error:.2g} of its range, '
            f'{worst.beyond:.1%} of it by more than allowed ({len(refused)} of {len(found)} comparisons)'
        )


def _deviation(
    name: str, batch: int, expected: np.ndarray, told: np.ndarray, tolerance: Tolerance
) -> Deviation:
    if expected.shape != told.shape:
        return Deviation(name, batch, float('inf'), 1.0, False)
    if not np.issubdtype(expected.dtype, np.floating):
        differing = float(np.mean(expected != told))
        return Deviation(name, batch, differing, differing, differing <= tolerance.others_beyond)
    if name in _ROTATIONS:
        expected, told = (rotation_matrices(array.reshape(-1, 3)) for array in (expected, told))
    expected, told = expected.astype(np.float64), told.astype(np.float64)
    known = np.isfinite(expected)  # elsewhere the graph itself says nothing
    if not known.any():
        return Deviation(name, batch, float('inf'), 1.0, False)
    expected, told = expected[known], told[known]
    scale = max(float(np.ptp(expected)), float(np.abs(expected).max()), 1e-6)
    errors = np.abs(told - expected) / scale
    errors[np.isnan(told)] = np.inf
    beyond = float(np.mean(errors > tolerance.error))
    return Deviation(name, batch, float(errors.max()), beyond, beyond <= tolerance.numbers_beyond)


def _plausible(generator: np.random.Generator, name: str, kind: str, row: tuple[Any, ...]) -> np.ndarray:
    """Hands for one input: smooth images, masks of one blob, numbers of about the right size."""
    dtype = _DTYPES.get(kind)
    if dtype is None or not all(isinstance(length, int) for length in row):
        raise FileFormatError(f'input {name} is {kind} {row}: no fixed shape, or a strange type')
    shape = (_HANDS, *row)
    if dtype == np.bool_:
        return generator.random(shape) < 0.8
    if name in _RANGES:
        return generator.uniform(*_RANGES[name], shape).astype(dtype)
    if dtype == np.uint8 or name == 'drawn':
        pixels = _smooth(generator, shape)
        if len(row) == 2:  # a mask
            pixels = np.where(pixels > 0.5, 1.0, 0.0)
        return (pixels * 255).astype(dtype) if dtype == np.uint8 else pixels.astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, 2, shape).astype(dtype)
    if name == 'vertices':
        return (generator.normal(0, 0.04, shape) + (0.0, 0.0, 0.6)).astype(dtype)
    return generator.normal(0, 0.5, shape).astype(dtype)


def _smooth(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Images (N,H,W) or (N,H,W,C), 0 to 1, of few waves."""
    count, height, width, *channels = shape
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing='ij')
    waves = np.zeros((count, height, width, int(np.prod(channels))))
    for _ in range(6):
        frequency = generator.uniform(-12, 12, (2, count, waves.shape[3]))
        phase = generator.uniform(0, 2 * np.pi, (count, waves.shape[3]))
        angle = y[..., None, None] * frequency[0] + x[..., None, None] * frequency[1] + phase
        waves += np.moveaxis(np.sin(angle), 2, 0)
    return (np.clip(waves / 6 + 0.5, 0, 1)).reshape(shape)
