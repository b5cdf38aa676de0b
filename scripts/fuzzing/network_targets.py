"""Files of networks: weights, and graphs with what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from fuzzing.file_targets import file_reader
from fuzzing.mutations import changed_tree, damaged, integer, json_bytes, text
from fuzzing.target import Reader, Target, expect
from hand_mesh_ros.inference.graph_files import (
    METADATA_KEY,
    WEIGHTS_HASH,
    checked_description,
    embedded_metadata,
    require_files_beside,
    sha256_of,
)
from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner
from hand_mesh_ros.inference.weights_file import NetworkFile
from hand_mesh_ros.networks.mask2hand import Mask2Hand, Mask2HandConfiguration, describe, load_mask2hand
from hand_mesh_ros.networks.weights import load_weights, save_weights

_HAND_MODEL = {'name': 'hand', 'sha256': 'c' * 64}


def _with_header(content: bytes, random: Random) -> bytes:
    """A safetensors file with another header in JSON."""
    length = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + length])
    if random.random() < 0.5 and '__metadata__' in header:
        description = json.loads(header['__metadata__']['description'])
        header['__metadata__']['description'] = json_bytes(description, random).decode('utf-8', 'replace')
        changed = json.dumps(header).encode()
    else:
        changed = json_bytes(header, random)
    return len(changed).to_bytes(8, 'little') + changed + content[8 + length :]


def _weights(folder: Path) -> Reader:
    whole = folder / 'whole.safetensors'
    save_weights(whole, torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)), _description())
    content = whole.read_bytes()

    def make(random: Random) -> bytes:
        return _with_header(content, random) if random.random() < 0.6 else damaged(content, content, random)

    def read(path: Path) -> None:
        _, description = load_weights(path)
        NetworkFile.described(path, description)

    return file_reader(folder, 'weights.safetensors', make, read)


def _description() -> dict:
    return {
        'network': 'hand',
        'configuration': {'image_size': 96, 'channels': [4, 4, 4, 4], 'backbone': 'mediapipe_hand'},
        'hand_model': _HAND_MODEL,
        'calibration': {'offset': 0.5, 'slope': 1.5},
    }


def _network(folder: Path) -> Reader:
    """A whole network, small, whose description speaks of other sizes."""
    whole = folder / 'whole.safetensors'
    network = Mask2Hand(Mask2HandConfiguration(32, (4, 4, 4, 4), 2, 8, 1, 2))
    description = describe(network, _HAND_MODEL)
    save_weights(whole, network, description)
    content = whole.read_bytes()
    length = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + length])

    def make(random: Random) -> bytes:
        if random.random() < 0.3:
            return damaged(content, content, random)
        changed = changed_tree(description, random)
        if (
            random.random() < 0.7
            and isinstance(changed, dict)
            and isinstance(changed.get('configuration'), dict)
        ):
            size = random.choice(list(description['configuration']))
            value = integer(random)
            changed['configuration'][size] = [value] * 4 if size == 'channels' else value
        told = {**header, '__metadata__': {'description': json.dumps(changed)}}
        written = json.dumps(told).encode()
        return len(written).to_bytes(8, 'little') + written + content[8 + length :]

    return file_reader(folder, 'mask2hand.safetensors', make, lambda path: load_mask2hand(path))


def _graph(weights_sha256: str, external: bool) -> bytes:
    """A small graph with what graphs of this package have, and with a graph in a graph."""
    matrix = numpy_helper.from_array(np.eye(4, dtype=np.float32), 'matrix')
    if external:
        matrix.ClearField('raw_data')
        matrix.data_location = TensorProto.EXTERNAL
        for key, value in (('location', 'graph.onnx.data'), ('offset', '0'), ('length', '64')):
            matrix.external_data.add(key=key, value=value)
    chosen = [
        helper.make_graph(
            [helper.make_node(kind, ['product'], ['chosen'])],
            kind,
            [],
            [helper.make_tensor_value_info('chosen', TensorProto.FLOAT, None)],
        )
        for kind in ('Relu', 'Neg')
    ]
    nodes = [
        helper.make_node('MatMul', ['x', 'matrix'], ['product']),
        helper.make_node('ReduceMax', ['product'], ['largest'], keepdims=0),
        helper.make_node('Cast', ['largest'], ['positive'], to=TensorProto.BOOL),
        helper.make_node('If', ['positive'], ['y'], then_branch=chosen[0], else_branch=chosen[1]),
        helper.make_node('Softmax', ['y'], ['z'], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        'hand',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n', 4])],
        [helper.make_tensor_value_info('z', TensorProto.FLOAT, None)],
        [matrix],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    told = {**_description(), WEIGHTS_HASH: weights_sha256}
    helper.set_model_props(model, {METADATA_KEY: json.dumps(told)})
    return model.SerializeToString()


def _graphs(folder: Path, load: bool) -> Reader:
    weights = folder / 'weights'
    weights.write_bytes(b'weights')
    (folder / 'graph.onnx.data').write_bytes(np.eye(4, dtype=np.float32).tobytes())
    contents = [_graph(sha256_of(weights), external) for external in (False, True)]

    def make(random: Random) -> bytes:
        content = random.choice(contents)
        kind = random.randrange(4)
        if kind < 2:
            return damaged(content, random.choice(contents), random)
        model = onnx.ModelProto.FromString(content)
        if kind == 2:
            told = json_bytes(json.loads(model.metadata_props[0].value), random)
            model.metadata_props[0].value = told.decode('utf-8', 'replace')
            return model.SerializeToString()
        _change_graph(model, random)
        written = model.SerializeToString()
        return damaged(written, content, random) if random.random() < 0.2 else written

    def read(path: Path) -> None:
        if load:
            runner = OnnxRuntimeRunner([path], threads=1, device='cpu')
            expect(runner.device == 'CPU', runner.device)
            runner.close()
            return
        metadata = embedded_metadata(path)
        require_files_beside(path)
        NetworkFile.described(weights, checked_description(path, metadata, weights))

    return file_reader(folder, 'graph.onnx', make, read)


def _change_graph(model: onnx.ModelProto, random: Random) -> None:
    """Other shapes, types, names, operators and places of the weights."""
    graph = model.graph
    for _ in range(random.choice((1, 1, 2, 4))):
        kind = random.randrange(8)
        tensor, node = graph.initializer[0], random.choice(graph.node)
        if kind == 0 and tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = (integer(random) + 2**63) % 2**64 - 2**63
        elif kind == 1:
            tensor.data_type = random.randrange(30)
        elif kind == 2 and tensor.external_data:
            value = random.choice((text(random).replace('\ud800', '?'), str(integer(random))))
            random.choice(tensor.external_data).value = value
        elif kind == 3 and node.input:
            node.input[0] = random.choice(('', 'x', 'z', 'y', 'matrix', 'product', 'nowhere'))
        elif kind == 4:
            node.op_type = random.choice(
                ('Loop', 'Scan', 'Resize', 'Reshape', 'Gather', 'Conv', 'Nothing', '')
            )
        elif kind == 5 and node.attribute:
            node.attribute[0].i = (integer(random) + 2**63) % 2**64 - 2**63
        elif kind == 6:
            graph.node.append(node)
        elif kind == 7:
            model.opset_import[0].version = integer(random) % 2**31


NETWORK_TARGETS = (
    Target('weights', 'file', 10_000, _weights, 5000),
    Target('mask2hand_weights', 'file', 1_000, _network, 500),
    Target('graph_metadata', 'file', 15_000, lambda folder: _graphs(folder, load=False)),
    Target('graph_load', 'file', 6_000, lambda folder: _graphs(folder, load=True), 1500),
)
