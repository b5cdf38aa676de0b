"""Learns from rendered scenes where hands end: what ``segmentation.wrist`` reads.

Run as ``python -m hand_mesh_ros.training.wrist_fit [--scenes N] [--seed S] OUT.npz``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.depth_scenes import DepthScene, DepthScenes
from hand_mesh_ros.rendering.depth_camera import camera_depth
from hand_mesh_ros.segmentation.limbs import BIN_M, Limb
from hand_mesh_ros.segmentation.masks import MaskSettings, limb_choices
from hand_mesh_ros.segmentation.wrist import CUTS, FEATURES, possible_cuts, wrist_features

#: Of a hand's limb the best cut is at least so good; of what is no hand's all are worse than the other.
_HAND_IOU, _OTHER_IOU = 0.6, 0.3
#: There is a scene without hands for each of so many with one.
_EMPTY_EVERY = 3
#: A limb may be seen from either end.
_MOST_CHOICES = 2

_HIDDEN, _BATCH, _RATE, _DECAY = 24, 192, 1e-2, 3e-5
#: Weight of knowing hands from other ends, beside that of cutting in the right place.
_HAND_WEIGHT = 0.1


class _Examples(NamedTuple):
    """N groups of limbs, at most one of them a hand's."""

    features: np.ndarray  #: (N,C,FEATURES) float32 for each choice and cut
    quality: np.ndarray  #: (N,C) IoU with the true mask
    possible: np.ndarray  #: (N,C) bool
    is_hand: np.ndarray  #: (N,) bool


def main() -> None:
    """Command line, see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, metavar='OUT.npz')
    parser.add_argument('--scenes', type=int, default=3600)
    parser.add_argument('--rounds', type=int, default=4000)
    parser.add_argument('--seed', type=int, default=100)
    options = parser.parse_args()
    examples = _gathered(range(options.scenes), options.seed)
    np.savez_compressed(options.out, **_fitted(examples, options.rounds, np.random.default_rng(options.seed)))


def _gathered(numbers: Sequence[int], seed: int) -> _Examples:
    camera = Camera.from_fov(640, 480)
    scenes = DepthScenes(seed, camera)
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]] = []
    for number in tqdm(numbers, unit='scene'):
        shown = [scenes.with_hand(number)]
        if number % _EMPTY_EVERY == 0:
            shown.append(scenes.without_hand(number))
        for scene in shown:
            rng = np.random.default_rng([seed, number, 2])
            rows += _examples_of(scene, camera_depth(scene.depth_m, camera, rng), camera)
    return _Examples(*(np.array(values) for values in zip(*rows, strict=True)))


def _examples_of(
    scene: DepthScene, depth_m: np.ndarray, camera: Camera
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
    surfaces, groups = limb_choices(depth_m, camera, MaskSettings())
    half, (height, width) = surfaces.stride // 2, surfaces.label.shape
    mask = scene.mask[half :: surfaces.stride, half :: surfaces.stride][:height, :width]
    for group in groups:
        qualities = [_quality(limb, mask) for limb in group]
        best = max((float(q.max()) for q in qualities), default=1.0)
        if _OTHER_IOU <= best < _HAND_IOU or not group:
            continue
        none = np.zeros((_MOST_CHOICES - len(group), len(CUTS)))
        features = [wrist_features(limb.widths) for limb in group] + [
            np.zeros((len(CUTS), FEATURES), np.float32)
        ] * len(none)
        possible = [possible_cuts(limb) for limb in group] + list(none > 0)
        yield (
            np.concatenate(features),
            np.concatenate([*qualities, *none]),
            np.concatenate(possible),
            best >= _HAND_IOU,
        )


def _quality(limb: Limb, mask: np.ndarray) -> np.ndarray:
    """IoU (N,) with the true ``mask`` of the reduced image, for each of ``CUTS``."""
    window, total = mask[limb.window], int(mask.sum())
    hands = [limb.along_m < cut * BIN_M for cut in CUTS]
    hits = np.array([(hand & window).sum() for hand in hands])
    return hits / np.maximum(np.array([hand.sum() for hand in hands]) + total - hits, 1)


def _fitted(examples: _Examples, rounds: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights of a ``WristFinder``, by Adam."""
    mean = examples.features[examples.possible].mean(0)
    weights = {
        'inner': rng.normal(0.0, FEATURES**-0.5, (FEATURES, _HIDDEN)),
        'inner_bias': np.zeros(_HIDDEN),
        'outer': rng.normal(0.0, _HIDDEN**-0.5, _HIDDEN),
        'outer_bias': np.zeros(()),
    }
    first, second = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    hands, others = np.nonzero(examples.is_hand)[0], np.nonzero(~examples.is_hand)[0]
    for k in tqdm(range(1, rounds + 1), unit='round'):
        rows = np.concatenate([rng.choice(hands, _BATCH), rng.choice(others, _BATCH // 2)])
        batch = _Examples(*(values[rows] for values in examples))
        slopes = _slopes(weights, batch._replace(features=batch.features - mean))
        for name, slope in slopes.items():
            slope = slope + _DECAY * weights[name]
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope**2
            step = first[name] / (1 - 0.9**k) / (np.sqrt(second[name] / (1 - 0.999**k)) + 1e-8)
            weights[name] = weights[name] - _RATE * (1.0 - k / (rounds + 1)) * step
    return {'mean': mean} | {name: np.float32(values) for name, values in weights.items()}


def _slopes(weights: dict[str, np.ndarray], batch: _Examples) -> dict[str, np.ndarray]:
    """Of the loss: the expected loss of IoU of hands, and how badly hands are told from others."""
    hidden = np.tanh(batch.features @ weights['inner'].astype(np.float32) + weights['inner_bias'])
    scores = np.where(batch.possible, hidden @ weights['outer'] + weights['outer_bias'], -1e4)
    top = scores.max(1, keepdims=True)
    shares = np.exp(scores - top)
    total = top[:, 0] + np.log(shares.sum(1))
    shares /= shares.sum(1, keepdims=True)
    expected = (shares * batch.quality).sum(1, keepdims=True)
    of_scores = shares * (expected - batch.quality) * batch.is_hand[:, None]
    sureness = 1.0 / (1.0 + np.exp(-np.clip(total, -30.0, 30.0)))
    of_scores += _HAND_WEIGHT * (sureness - batch.is_hand)[:, None] * shares
    of_scores = np.where(batch.possible, of_scores, 0.0) / len(scores)
    of_hidden = (of_scores[..., None] * weights['outer'] * (1.0 - hidden**2)).reshape(-1, hidden.shape[-1])
    return {
        'inner': batch.features.reshape(-1, FEATURES).T @ of_hidden,
        'inner_bias': of_hidden.sum(0),
        'outer': np.einsum('nc,nck->k', of_scores, hidden),
        'outer_bias': of_scores.sum(),
    }


if __name__ == '__main__':
    main()
