"""Hands that are run together are the hands that each is by itself, however many threads there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.inference.graph_files import maskhand_graphs
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner
from hand_mesh_ros.networks.shipped import MASKHAND_PATH


def hands(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        'images': rng.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8),
        'keypoints': rng.uniform(-0.8, 0.8, (count, 21, 2)).astype(np.float32),
        'confidence': rng.uniform(0.2, 1.0, (count, 21)).astype(np.float32),
        'relative_depth': rng.normal(0.0, 0.2, (count, 21)).astype(np.float32),
        'world': rng.normal(0.0, 0.7, (count, 21, 3)).astype(np.float32),
        'present': np.ones((count, 3), bool),
    }


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_a_batch_gives_what_each_hand_gives(threads):
    runner = OnnxRuntimeRunner(maskhand_graphs(MASKHAND_PATH, DEFAULT_STEPS), threads)
    given = hands(3)
    together = runner.run(given)
    assert all(len(array) == 3 for array in together.values())
    for row in range(3):
        alone = runner.run({name: array[row : row + 1] for name, array in given.items()})
        for name, array in alone.items():
            np.testing.assert_allclose(together[name][row], array[0], atol=2e-4, err_msg=name)
    runner.close()


def test_what_was_given_stays_as_it_is():
    runner = OnnxRuntimeRunner(maskhand_graphs(MASKHAND_PATH, DEFAULT_STEPS), threads=2)
    first = runner.run(hands(2))
    kept = {name: array.copy() for name, array in first.items()}
    other = {name: array[::-1].copy() for name, array in hands(2).items()}
    runner.run(other)
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name], err_msg=name)


def test_what_fails_fails_at_once_and_not_for_ever():
    runner = OnnxRuntimeRunner(maskhand_graphs(MASKHAND_PATH, DEFAULT_STEPS), threads=2)
    broken = {**hands(2), 'keypoints': np.zeros((2, 20, 2), np.float32)}
    with pytest.raises(Exception, match='keypoints'):
        runner.run(broken)
    assert len(runner.run(hands(2))['vertices']) == 2


@pytest.mark.parametrize('where', ['../secret', '{folder}/secret', 'weights/../../secret', '..'])
@pytest.mark.parametrize('hidden', [False, True])
def test_a_graph_reads_no_files_but_those_beside_it(tmp_path, where, hidden):
    """It may come from a stranger, and ONNX Runtime itself reads whatever it names."""
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    tensor = onnx.TensorProto(name='w', data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=where.format(folder=tmp_path))
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in 'xy')
    nodes = [onnx.helper.make_node('Add', ['x', 'w'], ['y'])]
    if hidden:  # in a node, instead of among the weights
        nodes.insert(0, onnx.helper.make_node('Constant', [], ['w'], value=tensor))
    graph = onnx.helper.make_graph(nodes, 'graph', [x], [y], [] if hidden else [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    (tmp_path / 'secret').write_bytes(np.ones(2, np.float32).tobytes())
    (tmp_path / 'net' / 'weights').mkdir(parents=True)
    path = tmp_path / 'net' / 'graph.onnx'
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FileFormatError, match=r'graph\.onnx: wants weights from .*not in its own folder'):
        OnnxRuntimeRunner([path])


def test_a_closed_estimator_keeps_no_threads_of_its_networks():
    def threads() -> int:
        return len(list(Path('/proc/self/task').iterdir()))

    estimator = HandMeshEstimator('mask2hand', backend='onnxruntime', threads=4, refinement='vertices')
    opened = threads()
    estimator.close()
    assert threads() <= opened - 2 * 3
