"""Hands that are run together are the hands that each is by itself, however many threads there are."""

from __future__ import annotations

import numpy as np
import pytest

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
