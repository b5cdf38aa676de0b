"""Graphs that ``hand-mesh export`` writes: what is in them, that they do what the networks do, and faults."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')
pytest.importorskip('onnxscript', reason='the exporter is not installed')
import torch
from safetensors import safe_open
from torch import nn
from varied_crops import (
    all_vertices,
    best_vertices,
    crops_of_hands,
    crops_of_masks,
    farthest_mm,
    run,
    with_silhouettes,
)

from hand_mesh_ros.cli.main import main
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.inference.engine import EngineSettings
from hand_mesh_ros.inference.export_networks import export_weights
from hand_mesh_ros.inference.graph_files import (
    METADATA_KEY,
    embedded_metadata,
    maskhand_graphs,
    sha256_of,
    single_graph,
)
from hand_mesh_ros.inference.loading import load_hand_network, load_silhouette_network
from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner
from hand_mesh_ros.inference.tensorrt_operators import unsupported
from hand_mesh_ros.inference.torch_parts import LoadedParts, mask2hand_parts, maskhand_parts, refinement_parts
from hand_mesh_ros.inference.torch_runner import TorchRunner
from hand_mesh_ros.networks.parts import Part
from hand_mesh_ros.networks.shipped import MASK2HAND_PATH, MASKHAND_PATH, REFINE_NET_PATH

SHIPPED = {
    'maskhand': (MASKHAND_PATH, maskhand_graphs(MASKHAND_PATH, 1)),
    'mask2hand': (MASK2HAND_PATH, single_graph(MASK2HAND_PATH)),
    'refinement': (REFINE_NET_PATH, single_graph(REFINE_NET_PATH)),
}


def parts_of(name: str, weights: Path) -> LoadedParts:
    if name.startswith('maskhand'):
        return maskhand_parts(weights, 2 if name == 'maskhand-t2' else 1)
    return mask2hand_parts(weights) if name == 'mask2hand' else refinement_parts(weights)


@pytest.fixture(scope='module')
def small(
    maskhand_weights: Path, mask2hand_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Sequence[Path]]]:
    """Weights of small networks that have learned nothing, and their graphs."""
    folder = tmp_path_factory.mktemp('graphs')
    return {
        'maskhand-t2': (
            folder / maskhand_weights.name,
            export_weights(maskhand_weights, steps=2, out=folder),
        ),
        'mask2hand': (folder / mask2hand_weights.name, export_weights(mask2hand_weights, out=folder)),
    }


@pytest.fixture(params=[*(f'shipped {name}' for name in SHIPPED), 'small maskhand-t2', 'small mask2hand'])
def exported(request, small) -> tuple[str, Path, Sequence[Path]]:
    which, _, name = request.param.partition(' ')
    return (name, *(SHIPPED if which == 'shipped' else small)[name])


def inputs_of(graph: Path, hands: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Any, as the graph takes them."""
    random = np.random.default_rng(seed)
    given = {}
    for value in onnx.load(graph, load_external_data=False).graph.input:
        shape = (hands, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        array = random.uniform(0.2, 1.0, shape)
        given[value.name] = (array * 255 if dtype == np.uint8 else array).astype(dtype)
    if 'half_sides' in given:
        given['half_sides'] *= 8
    return given


def test_tensorrt_takes_every_operator(exported):
    name, weights, graphs = exported
    parts, *_ = parts_of(name, weights)
    tensors = {name: torch.from_numpy(array) for name, array in inputs_of(graphs[0], 2).items()}
    for part, path in zip(parts, graphs, strict=True):
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        assert unsupported(model) == []
        norms = layer_normalisations(part, tensors)
        assert norms == sum(node.op_type == 'LayerNormalization' for node in model.graph.node)
        assert [value.name for value in model.graph.input] == list(part.inputs)
        assert [value.name for value in model.graph.output] == list(part.outputs)
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == 'batch'


def layer_normalisations(part: Part, tensors: dict[str, torch.Tensor]) -> int:
    """How many run in one call, of which the outputs are added to ``tensors``."""
    run_norms: list[nn.Module] = []
    for module in part.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, *_: run_norms.append(module))
    with torch.inference_mode():
        tensors |= zip(part.outputs, part(*(tensors[name] for name in part.inputs)), strict=True)
    return len(run_norms)


def test_graphs_say_what_they_are_of(exported):
    name, weights, graphs = exported
    for path in graphs:
        told = json.loads(embedded_metadata(path)[METADATA_KEY])
        assert told['weights_sha256'] == sha256_of(weights)
        assert told['hand_model']['sha256'] == load_hand_model().sha256
        assert told['configuration']['image_size'] in (64, 96, 224)
        assert (told['precision'], told['batch']) == ('fp32', 0)
        assert {'colour', 'normalisation', 'crop'} <= told.keys()
        decodes = 'decoder' in path.name
        assert told.get('iterations') == ((2 if name == 'maskhand-t2' else 1) if decodes else None)


def test_nothing_of_the_weights_is_in_the_graphs(exported):
    """But in the file beside them, to which they refer."""
    _, weights, graphs = exported
    for path in graphs:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        outside = {
            tensor.name.removeprefix('network.').removesuffix('.stored'): entry.value
            for tensor in tensors
            for entry in tensor.external_data
            if entry.key == 'location'
        }
        assert set(outside.values()) == {weights.name}
        with safe_open(weights, 'np') as file:
            stored = set(file.keys())
        assert outside.keys() <= stored
        inside = {tensor.name.removeprefix('network.') for tensor in tensors if not tensor.external_data}
        assert stored.isdisjoint(inside)


@pytest.mark.parametrize('name', ['maskhand-t2', 'mask2hand'])
def test_a_batch_is_so_many_hands_and_torch_says_the_same(small, name):
    weights, graphs = small[name]
    inputs = inputs_of(graphs[0], 7)
    runner = OnnxRuntimeRunner(graphs, threads=1)
    alone = run(runner, inputs, 1)
    by_torch = run(TorchRunner(parts_of(name, weights)[0]), inputs, 7)
    for told in (run(runner, inputs, 2), run(runner, inputs, 4), by_torch):
        for output, expected in alone.items():
            np.testing.assert_allclose(told[output], expected, rtol=1e-3, atol=2e-5, err_msg=output)


def test_shipped_graphs_are_those_of_the_networks(tmp_path):
    """Whoever changes a network, or its weights, must export it anew: hand-mesh export.

    MaskHand's, which takes long to export, is compared by what it computes, below.
    """
    for weights, graphs in (SHIPPED['mask2hand'], SHIPPED['refinement']):
        for shipped, fresh in zip(graphs, export_weights(weights, out=tmp_path), strict=True):
            assert contents(shipped) == contents(fresh), f'{shipped}: run hand-mesh export'


def contents(path: Path) -> list[bytes]:
    """All of a graph but what PyTorch calls its values."""
    graph = onnx.load(path, load_external_data=False).graph
    numbers: dict[str, str] = {value.name: value.name for value in (*graph.input, *graph.output)}
    for tensor in graph.initializer:
        numbers.setdefault(
            tensor.name, tensor.name if tensor.external_data else f'constant {tensor.raw_data!r}'
        )
    lines = []
    for node in graph.node:
        taken = [numbers.get(name, '') for name in node.input]
        for index, name in enumerate(node.output):
            numbers.setdefault(name, f'{node.name}:{index}')
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        lines.append(repr((node.op_type, node.name, taken, attributes)).encode())
    return lines


@functools.cache
def by_torch_and_onnxruntime(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    weights, graphs = SHIPPED[name]
    if name == 'refinement':
        inputs = with_silhouettes(by_torch_and_onnxruntime('mask2hand')[0])
    else:
        inputs = crops_of_hands() if name == 'maskhand' else crops_of_masks()
    runners = (TorchRunner(parts_of(name, weights)[0], threads=1), OnnxRuntimeRunner(graphs, threads=1))
    one, other = (run(runner, inputs) for runner in runners)
    return one, other


def test_maskhand_is_what_pytorch_makes_of_it():
    expected, told = by_torch_and_onnxruntime('maskhand')
    assert len(told['vertices']) == 200
    assert farthest_mm(told['vertices'], expected['vertices']) < 0.1
    assert (told['tokens'] == expected['tokens']).mean() >= 0.995
    for name in ('confidence', 'presence', 'keypoints_2d', 'betas'):
        np.testing.assert_allclose(told[name], expected[name], atol=1e-3, err_msg=name)


def test_mask2hand_is_what_pytorch_makes_of_it():
    expected, told = by_torch_and_onnxruntime('mask2hand')
    assert len(told['score']) == 200
    assert farthest_mm(all_vertices(told), all_vertices(expected)) < 0.1
    assert farthest_mm(best_vertices(told), best_vertices(expected)) < 0.1
    np.testing.assert_allclose(told['confidence'], expected['confidence'], atol=1e-3)
    np.testing.assert_allclose(told['score'], expected['score'], atol=1e-3)
    expected, told = by_torch_and_onnxruntime('refinement')
    assert farthest_mm(told['offsets'], expected['offsets']) < 0.1


@pytest.fixture
def copied(small, tmp_path) -> tuple[Path, list[Path]]:
    """A network's files, to be damaged."""
    weights, graphs = small['maskhand-t2']
    paths = [Path(shutil.copy(path, tmp_path / path.name)) for path in (weights, *graphs)]
    return paths[0], paths[1:]


ONNXRUNTIME = EngineSettings('onnxruntime', threads=1)


def test_damaged_graphs_are_told_with_path_and_remedy(copied):
    weights, (encoder, decoder) = copied
    load_hand_network(weights, 2, ONNXRUNTIME)
    for damaged, content in ((encoder, encoder.read_bytes()[:-2000]), (decoder, b'no graph at all')):
        whole = damaged.read_bytes()
        damaged.write_bytes(content)
        with pytest.raises(FileFormatError, match='hand-mesh export') as told:
            load_hand_network(weights, 2, ONNXRUNTIME)
        assert str(damaged) in str(told.value)
        damaged.write_bytes(whole)


def test_graphs_of_other_weights_are_refused(copied):
    weights, (encoder, _) = copied
    with weights.open('r+b') as file:
        file.seek(-1, 2)
        file.write(b'\x07')
    with pytest.raises(FileFormatError, match='made of other weights.*hand-mesh export --weights') as told:
        load_hand_network(weights, 2, ONNXRUNTIME)
    assert str(encoder) in str(told.value)


def test_graphs_without_their_weights_are_refused(copied):
    weights, graphs = copied
    weights.unlink()
    with pytest.raises(FileFormatError, match='its weights are not beside it') as told:
        OnnxRuntimeRunner(graphs)
    assert str(graphs[0]) in str(told.value)
    with pytest.raises(FileFormatError, match=str(weights)):
        load_hand_network(weights, 2, ONNXRUNTIME)


def test_the_command_writes_graphs_in_both_precisions(mask2hand_weights, tmp_path, capsys):
    command = ['export', '--weights', str(mask2hand_weights), '--out', str(tmp_path / 'new')]
    assert main([*command, '--precision', 'fp16', '--batch', '2']) == 0
    single, half = tmp_path / 'new' / 'mask2hand.onnx', tmp_path / 'new' / 'mask2hand.fp16.onnx'
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(':')[0] for line in lines] == [str(single), str(half)]
    assert all('operators of' in line for line in lines)
    inputs = inputs_of(single, 2)
    expected, told = (OnnxRuntimeRunner([path], threads=1).run(inputs) for path in (single, half))
    np.testing.assert_allclose(told['wrist'], expected['wrist'], atol=2e-3)
    for path, precision in ((single, 'fp32'), (half, 'fp16')):
        description = json.loads(embedded_metadata(path)[METADATA_KEY])
        assert (description['precision'], description['batch']) == (precision, 2)
        (length, *_) = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
        assert length.dim_value == 2
    with pytest.raises(
        ConfigurationError, match=r'mask2hand\.onnx takes batches of 2 hands only.*hand-mesh export'
    ):
        load_silhouette_network(single.with_suffix('.safetensors'), ONNXRUNTIME)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--batch', '2'], '--out DIR'),
        (['--batch', '-1'], '0 or more'),
        (['--iterations', '17'], '1 to 16'),
        (['--weights', '/nowhere.safetensors'], '/nowhere.safetensors'),
        (['--weights', __file__], 'test_export.py'),
    ],
)
def test_the_command_says_what_is_wrong(options, said, capsys):
    assert main(['export', *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(
        'hand_mesh_ros.cli.export.find_spec', lambda name: None if name == 'onnxscript' else name
    )
    assert main(['export']) == 2
    assert (
        capsys.readouterr().err == 'hand-mesh: export needs onnxscript: pip install "hand-mesh-ros[export]"\n'
    )
