"""A machine with a GPU that is none, two small graphs for it, and processes that build their engines."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from cuda_double import NEWEST, Driver, cuda_double
from onnx import TensorProto, helper, numpy_helper
from tensorrt_double import VERSIONS, tensorrt_double

from hand_mesh_ros.inference import cuda
from hand_mesh_ros.inference.graph_files import METADATA_KEY, WEIGHTS_HASH

#: Hands of these graphs have this many vertices.
VERTICES = 5


def install_doubles(
    modules: Any, attributes: Any, version: str = VERSIONS[0], cuda_version: str = NEWEST
) -> tuple[ModuleType, ModuleType]:
    """TensorRT and CUDA, not the real ones.

    :param modules: sets an item of ``sys.modules``: its ``__setitem__``, or that of a monkeypatch.
    :param attributes: sets an attribute of a module.
    """
    trt, runtime = tensorrt_double(version), cuda_double(cuda_version)
    attributes(cuda, '_driver', Driver)
    parent: Any = ModuleType('cuda')
    modules('tensorrt', trt)
    modules('cuda', parent)
    if cuda_version.startswith('cuda.bindings'):
        bindings: Any = ModuleType('cuda.bindings')
        parent.bindings, bindings.runtime = bindings, runtime
        modules('cuda.bindings', bindings)
        modules('cuda.bindings.runtime', runtime)
    else:
        parent.cudart = runtime
        modules('cuda.bindings', None)  # cannot be imported
        modules('cuda.cudart', runtime)
    return trt, runtime


def machines(monkeypatch: Any) -> Callable[..., tuple[ModuleType, ModuleType]]:
    """A function that makes this machine one with a GPU and that TensorRT, for one test."""

    def make(version: str = VERSIONS[-1], cuda_version: str = NEWEST) -> tuple[ModuleType, ModuleType]:
        return install_doubles(
            lambda name, module: monkeypatch.setitem(sys.modules, name, module),
            monkeypatch.setattr,
            version,
            cuda_version,
        )

    return make


def write_graphs(folder: Path, seed: int = 1, named: str = 'small') -> tuple[Path, Path]:
    """Encoder and decoder as ``hand-mesh export`` writes them: half the weights in half precision, in one
    file beside the graphs, and cast where they enter."""
    generator = np.random.default_rng(seed)
    weights = {
        'w': generator.normal(0, 0.5, (3, 16)).astype(np.float16),
        'b': generator.normal(0, 0.5, 16).astype(np.float16),
        'v': generator.normal(0, 0.2, (16, 3 * VERTICES)).astype(np.float32),
    }
    blob = b'not safetensors, but of its kind' + b''.join(array.tobytes() for array in weights.values())
    file = folder / f'{named}.safetensors'
    file.write_bytes(blob)
    described = {'network': 'small', 'precision': 'fp32', WEIGHTS_HASH: hashlib.sha256(blob).hexdigest()}
    external, offset = {}, 32
    for name, array in weights.items():
        external[name] = _external(name, array, file.name, offset)
        offset += array.nbytes
    encoder = _graph(
        'encoder',
        [('images', TensorProto.UINT8, (8, 8, 3)), ('confidence', TensorProto.FLOAT, (4,))],
        [('features', TensorProto.FLOAT, (16,)), ('certainty', TensorProto.FLOAT, ())],
        [
            helper.make_node('Cast', ['w'], ['w32'], to=TensorProto.FLOAT),
            helper.make_node('Cast', ['b'], ['b32'], to=TensorProto.FLOAT),
            helper.make_node('Transpose', ['images'], ['turned'], perm=[0, 3, 1, 2]),
            helper.make_node('Cast', ['turned'], ['pixels'], to=TensorProto.FLOAT),
            helper.make_node('Div', ['pixels', 'byte'], ['shares']),
            helper.make_node('ReduceMean', ['shares'], ['means'], axes=[2, 3], keepdims=0),
            helper.make_node('Gemm', ['means', 'w32', 'b32'], ['features']),
            helper.make_node('ReduceMean', ['confidence'], ['certainty'], axes=[1], keepdims=0),
        ],
        [external['w'], external['b'], numpy_helper.from_array(np.float32(255), 'byte')],
    )
    decoder = _graph(
        'decoder',
        [('features', TensorProto.FLOAT, (16,)), ('certainty', TensorProto.FLOAT, ())],
        [('vertices', TensorProto.FLOAT, (VERTICES, 3)), ('tokens', TensorProto.INT64, ())],
        [
            helper.make_node('MatMul', ['features', 'v'], ['flat']),
            helper.make_node('Reshape', ['flat', 'shape'], ['unscaled']),
            helper.make_node('Reshape', ['certainty', 'ones'], ['scale']),
            helper.make_node('Mul', ['unscaled', 'scale'], ['vertices']),
            helper.make_node('ArgMax', ['features'], ['tokens'], axis=1, keepdims=0),
        ],
        [
            external['v'],
            numpy_helper.from_array(np.array([-1, VERTICES, 3]), 'shape'),
            numpy_helper.from_array(np.array([-1, 1, 1]), 'ones'),
        ],
    )
    paths = folder / f'{named}.encoder.onnx', folder / f'{named}.decoder.onnx'
    for path, model in zip(paths, (encoder, decoder), strict=True):
        helper.set_model_props(model, {METADATA_KEY: json.dumps(described)})
        path.write_bytes(model.SerializeToString())
    return paths


def small_inputs(count: int, seed: int = 5) -> dict[str, np.ndarray]:
    """What the chain of both graphs takes."""
    generator = np.random.default_rng(seed)
    return {
        'images': generator.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8),
        'confidence': generator.random((count, 4)).astype(np.float32),
    }


def _graph(name: str, inputs: Any, outputs: Any, nodes: Any, weights: Any) -> onnx.ModelProto:
    def values(told: Any) -> list[Any]:
        return [helper.make_tensor_value_info(key, kind, ['batch', *row]) for key, kind, row in told]

    graph = helper.make_graph(nodes, name, values(inputs), values(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def _external(name: str, array: np.ndarray, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (('location', location), ('offset', offset), ('length', array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def main() -> None:
    """Build the engines of a folder's graphs in this process: FOLDER CACHE SECONDS-A-BUILD WAIT."""
    import logging

    from hand_mesh_ros.inference.tensorrt_engines import EngineOptions, engines_of

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    folder, cache, build_s, wait_s = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:5])
    trt, _ = install_doubles(sys.modules.__setitem__, setattr)
    trt.double.build_s = build_s
    graph = folder / 'small.encoder.onnx'
    engines_of([graph], EngineOptions('fp32', cache_folder=cache, wait_s=wait_s))
    print(f'builds {trt.double.builds}')


if __name__ == '__main__':
    main()
