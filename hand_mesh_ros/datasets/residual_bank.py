"""Writes a bank of what MediaPipe says of rendered hands, beside the truth: see ``residuals``.

Run as ``python -m hand_mesh_ros.datasets.residual_bank --out FILE.npz --count N``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hand_mesh_ros.crop_view import RMS_SHARE, views_of_hands
from hand_mesh_ros.datasets.cue_noise import true_landmarks
from hand_mesh_ros.datasets.residuals import Landmarks
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.detection.cues import detected_cues
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import ConfigurationError

#: Out of the reach of the seeds of training and of what is held out from it.
DEFAULT_SEED = 3_000_000_019

_PICTURE_PX = 256
#: The hand is so many times as large in its picture as in a crop, of which it fills about 0.7.
_ZOOMS = (0.5, 1.0)

#: Mean error in half sides of the crop above which something else was found, or the hand misread altogether:
#: two thirds of the RMS distance of its keypoints from its middle.
_GREATEST_ERROR = 4 / 3 * RMS_SHARE


def detected_hand(
    hands: SyntheticHands, index: int, detector: MediaPipeDetector
) -> tuple[Landmarks, Landmarks] | None:
    """The truth of synthetic hand number ``index``, and what ``detector`` says of it; of one hand (N = 1).

    None where it finds no hand or another one. Which side it takes the hand for does not matter.
    """
    zoom = float(np.random.default_rng(index).uniform(*_ZOOMS))
    picture, keypoints, shown = hands.picture(index, zoom)
    points = keypoints[None] @ shown.R_crop_camera.T
    crops = views_of_hands(points, shown.size)
    truth = true_landmarks(points, crops)
    best, least_error = None, _GREATEST_ERROR
    for detection in detector.detect(picture):
        cues = detected_cues(detection, shown.camera(), crops[0])
        error = np.linalg.norm(cues.keypoints - truth.keypoints[0], axis=1).mean()
        if cues.present.all() and cues.confidence.all() and error < least_error:
            best, least_error = cues, error
    if best is None:
        return None
    return truth, Landmarks(best.keypoints[None], best.relative_depth[None], best.world[None])


def write_residual_bank(path: Path, count: int, seed: int = DEFAULT_SEED) -> dict[str, float]:
    """Render hands until ``count`` of them are found; write those to ``path``.

    An .npz of float16 arrays, as ``ResidualBank.load`` reads it. Interrupted from the keyboard, it writes
    what it has.

    :returns: what ``statistics`` says of them, and ``share_found`` of all the hands rendered.
    :raises ConfigurationError: a count below 1, or a file that cannot be written.
    """
    if count < 1:
        raise ConfigurationError(f'count must be at least 1, got {count}')
    if not path.parent.is_dir():
        raise ConfigurationError(f'{path}: there is no folder {path.parent}')
    hands, detector = SyntheticHands(seed, _PICTURE_PX), MediaPipeDetector()
    found: list[tuple[Landmarks, Landmarks]] = []
    rendered = 0
    try:
        with tqdm(total=count, unit='hand') as progress:
            while len(found) < count:
                hand = detected_hand(hands, rendered, detector)
                rendered += 1
                if hand is not None:
                    found.append(hand)
                    progress.update()
    except KeyboardInterrupt:
        if not found:
            raise
    finally:
        detector.close()
    truth, detected = (_stacked([hand[which] for hand in found]) for which in (0, 1))
    arrays = {**truth._asdict(), **{f'detected_{name}': said for name, said in detected._asdict().items()}}
    try:
        with path.open('wb') as file:  # given a path, numpy might append .npz to it
            np.savez_compressed(file, **{name: values.astype(np.float16) for name, values in arrays.items()})
    except OSError as error:
        raise ConfigurationError(f'{path}: cannot be written: {error.strerror}') from error
    return {'share_found': len(found) / rendered, **statistics(truth, detected)}


def statistics(truth: Landmarks, detected: Landmarks) -> dict[str, float]:
    """What a detector's landmarks are worth.

    ``keypoint_error``: mean, in sides of the box around the hand. ``depth_correlation`` of one hand with the
    true depths, median; ``depth_gain``, the slope of the detector's depths over the true ones, all hands
    together. ``world_error``: mean distance of the world landmarks from the true ones, in hand sizes (RMS
    distance of a hand's keypoints from their mean).
    """
    boxes = np.ptp(truth.keypoints, axis=1).max(1)
    errors = np.linalg.norm(detected.keypoints - truth.keypoints, axis=2).mean(1)
    depths, said = truth.relative_depth, detected.relative_depth
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(depths, said, strict=True)]
    return {
        'keypoint_error': float((errors / boxes).mean()),
        'depth_correlation': float(np.median(correlations)),
        'depth_gain': float((depths * said).sum() / (depths**2).sum()),
        'world_error': float(np.linalg.norm(detected.world - truth.world, axis=2).mean()),
    }


def _stacked(landmarks: list[Landmarks]) -> Landmarks:
    return Landmarks(*(np.concatenate(values) for values in zip(*landmarks, strict=True)))


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Write MediaPipe's errors on rendered hands.")
    parser.add_argument('--out', type=Path, required=True, help='the .npz to write')
    parser.add_argument('--count', type=int, default=5000, help='how many hands it shall have found')
    parser.add_argument('--seed', type=int, default=DEFAULT_SEED)
    options = parser.parse_args(arguments)
    for name, value in write_residual_bank(options.out, options.count, options.seed).items():
        print(f'{name}: {value:.3f}')


if __name__ == '__main__':
    main()
