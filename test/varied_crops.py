"""Rendered hands of all kinds as the networks' graphs take them, and how far two answers are apart."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.evaluation.synthetic import TEST_SEED
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.inference.graph import GraphRunner
from hand_mesh_ros.rendering.masks import hard_silhouettes

COUNT = 200

Arrays = dict[str, np.ndarray]


@functools.cache
def crops_of_hands() -> Arrays:
    """For MaskHand. Of some hands cues are missing."""
    batch = SyntheticHands(TEST_SEED, 224, residuals=ResidualBank.shipped()).batch(np.arange(COUNT))
    cues = {name.removeprefix('cue_'): batch[name] for name in batch if name.startswith('cue_')}
    return {'images': batch['image'], **cues}


@functools.cache
def crops_of_masks() -> Arrays:
    """For Mask2Hand. Half of the masks are worn."""
    batch = SyntheticMasks(TEST_SEED, worn_share=0.5).batch(np.arange(COUNT))
    return {'crops': batch['mask'], 'half_sides': batch['half_side']}


def with_silhouettes(told: Mapping[str, np.ndarray]) -> Arrays:
    """For the refinement: ``crops_of_masks`` and the best hand that Mask2Hand told of each."""
    crops, model = crops_of_masks(), load_hand_model()
    vertices = best_vertices(told)
    size = crops['crops'].shape[1]
    drawn = hard_silhouettes(vertices, model.faces, crops['half_sides'].astype(np.float64), size)
    return {**crops, 'drawn': drawn.astype(np.float32), 'vertices': vertices.astype(np.float32)}


def run(runner: GraphRunner, inputs: Mapping[str, np.ndarray], batch: int = 8) -> Arrays:
    """What ``runner`` makes of all of them, so many at a time."""
    count = len(next(iter(inputs.values())))
    told = [
        runner.run(
            {name: np.ascontiguousarray(array[start : start + batch]) for name, array in inputs.items()}
        )
        for start in range(0, count, batch)
    ]
    return {name: np.concatenate([part[name] for part in told]) for name in told[0]}


def best_vertices(told: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,V,3) float64 metres, in the crops' cameras, of Mask2Hand's best hands."""
    return _vertices(told, told['score'].argmax(axis=1)[:, None])[:, 0]


def all_vertices(told: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,K,V,3) float64 metres, from the wrist, of all of Mask2Hand's hands."""
    every = np.broadcast_to(np.arange(told['score'].shape[1]), told['score'].shape)
    return _vertices({**told, 'wrist': np.zeros_like(told['wrist'])}, every)


def farthest_mm(one: np.ndarray, other: np.ndarray) -> float:
    """Between points (...,3), metres, of the same number."""
    return float(np.linalg.norm(one - other, axis=-1).max() * 1e3)


def _vertices(told: Mapping[str, np.ndarray], which: np.ndarray) -> np.ndarray:
    model = load_hand_model()

    def placed(row: int, hand: int) -> np.ndarray:
        names = ('global_orient', 'hand_pose', 'betas')
        posed = model.posed(*(told[name][row, hand].astype(np.float64) for name in names), np.zeros(3))
        return posed.vertices - posed.keypoints[0] + told['wrist'][row, hand]

    return np.array([[placed(row, hand) for hand in hands] for row, hands in enumerate(which)])
