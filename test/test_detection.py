"""Hands are found wherever and however they lie in the picture, and nothing is found where there are none.

The repository holds no photographs: a drawn hand stands in, and photographs beside the checkout where there
are any.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.detection.detection import Detection, HandBox
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS

BACKGROUND = (70, 95, 120)
SKIN, LINE = (224, 172, 135), (176, 122, 92)

#: A left hand, palm to the viewer, drawn in 320 x 320: the fingers' joints from root to tip, their widths.
FINGERS = np.array(
    [
        [(120, 250), (85, 215), (62, 185), (42, 158)],
        [(128, 180), (118, 130), (113, 100), (109, 72)],
        [(160, 172), (160, 115), (160, 82), (160, 50)],
        [(190, 178), (199, 128), (204, 98), (208, 70)],
        [(216, 192), (234, 152), (244, 130), (253, 108)],
    ]
)
WIDTHS = (26, 22, 23, 21, 18)
PALM = [
    (120, 270),
    (108, 235),
    (116, 178),
    (140, 162),
    (175, 160),
    (205, 166),
    (230, 185),
    (226, 235),
    (208, 275),
]


def drawn_hand() -> np.ndarray:
    """A flat left hand, (320,320,3) uint8 RGB."""
    fine = 4
    image = np.full((320 * fine, 320 * fine, 3), BACKGROUND, np.uint8)

    def stroke(points, width, colour):
        corners = (np.asarray(points) * fine).astype(np.int32)
        cv2.polylines(image, [corners], False, colour, int(width * fine), cv2.LINE_AA)

    stroke([(167, 330), (165, 270)], 80, SKIN)
    for finger, width in zip(FINGERS, WIDTHS, strict=True):
        stroke(finger, width + 5, LINE)
    for finger, width in zip(FINGERS, WIDTHS, strict=True):
        stroke(finger, width, SKIN)
    cv2.fillPoly(image, [(np.array(PALM) * fine).astype(np.int32)], SKIN, cv2.LINE_AA)
    for finger, width in zip(FINGERS, WIDTHS, strict=True):
        for x, y in finger[1:3]:
            stroke([(x - 0.3 * width, y), (x + 0.3 * width, y)], 2, LINE)
    for crease in ([(125, 205), (205, 200)], [(120, 222), (215, 215)], [(135, 200), (150, 270)]):
        stroke(crease, 3, LINE)
    image = cv2.resize(cv2.GaussianBlur(image, (0, 0), 8.0), (320, 320), interpolation=cv2.INTER_AREA)
    inside = np.abs(image.astype(int) - BACKGROUND).sum(axis=2) > 40
    roundness = np.minimum(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5) / 14, 1) ** 0.7
    shade = np.where(inside, 0.72 + 0.28 * roundness, 1.0)
    return (image * shade[..., None]).astype(np.uint8)


def canvas(width: int, height: int, *hands: tuple[np.ndarray, int, int]) -> np.ndarray:
    """A plain picture with hands at (x, y)."""
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    for hand, x, y in hands:
        image[y : y + hand.shape[0], x : x + hand.shape[1]] = hand
    return image


def mirrored(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def offset_px(a: Detection, keypoints_px: np.ndarray) -> float:
    return float(np.linalg.norm(a.keypoints_px - keypoints_px, axis=1).mean())


@pytest.fixture(scope='module')
def detector() -> Iterator[MediaPipeDetector]:
    detector = MediaPipeDetector()
    yield detector
    detector.close()


@pytest.fixture(scope='module')
def hand() -> np.ndarray:
    return drawn_hand()


@pytest.fixture(scope='module')
def picture(hand) -> np.ndarray:
    return canvas(640, 640, (hand, 160, 160))


@pytest.fixture(scope='module')
def seen(detector, picture) -> Detection:
    (detection,) = detector.detect(picture)
    return detection


def test_a_hand_is_found_where_it_is(seen):
    assert seen.side == 'left'
    assert seen.side_score > 0.8
    assert seen.score > 0.8
    tips = seen.keypoints_px[list(TIP_KEYPOINTS)]
    assert np.linalg.norm(tips - (FINGERS[:, 3] + 160), axis=1).max() < 20
    x0, y0, x1, y1 = seen.bbox_px
    assert np.all((seen.keypoints_px > (x0, y0)) & (seen.keypoints_px < (x1, y1)))
    for array, shape in ((seen.keypoints_px, (21, 2)), (seen.keypoints_depth, (21,)), (seen.bbox_px, (4,))):
        assert array.shape == shape
        assert array.dtype == np.float32


def test_world_landmarks_are_metres_along_the_axes_of_the_image(seen):
    world, pixels = seen.landmarks_world, seen.keypoints_px
    assert world.shape == (21, 3)
    assert np.linalg.norm(world.mean(axis=0)) < 0.05
    assert 0.12 < np.linalg.norm(world[12] - world[0]) < 0.25  # wrist to tip of the middle finger
    assert np.corrcoef(world[:, 0], pixels[:, 0])[0, 1] > 0.97
    assert np.corrcoef(world[:, 1], pixels[:, 1])[0, 1] > 0.97


def test_the_mirror_image_is_the_other_hand(detector, picture, seen):
    (other,) = detector.detect(mirrored(picture))
    assert other.side == 'right'
    assert offset_px(other, (639, 0) + seen.keypoints_px * (-1, 1)) < 6


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_a_turned_image_gives_turned_landmarks(detector, picture, seen, quarters):
    (turned,) = detector.detect(np.ascontiguousarray(np.rot90(picture, quarters)))
    pixels, world = turned.keypoints_px.astype(float), turned.landmarks_world.astype(float)
    for _ in range(quarters):  # back: np.rot90 brings (x, y) to (y, 639 - x)
        pixels = np.stack([639 - pixels[:, 1], pixels[:, 0]], axis=1)
        world = np.stack([-world[:, 1], world[:, 0], world[:, 2]], axis=1)
    assert turned.side == 'left'
    assert offset_px(seen, pixels) < 6
    assert np.linalg.norm(seen.landmarks_world - world, axis=1).mean() < 0.006
    assert np.abs(seen.keypoints_depth - turned.keypoints_depth).mean() < 15


def test_two_hands_are_two(detector, hand):
    both = canvas(1000, 640, (hand, 80, 160), (mirrored(hand), 600, 160))
    left, right = sorted(detector.detect(both), key=lambda d: d.bbox_px[0])
    assert (left.side, right.side) == ('left', 'right')
    alike = detector.detect(canvas(1000, 640, (hand, 80, 160), (hand, 600, 160)))
    assert [d.side for d in alike] == ['left', 'left']
    assert alike[0].score >= alike[1].score


def test_no_more_hands_than_asked_for(hand):
    detector = MediaPipeDetector(max_hands=1)
    assert len(detector.detect(canvas(1000, 640, (hand, 80, 160), (mirrored(hand), 600, 160)))) == 1
    detector.close()


def test_a_hand_that_fills_the_image_is_found(detector, hand, seen):
    (close,) = detector.detect(hand)
    assert offset_px(close, seen.keypoints_px - 160) < 10


def test_a_small_hand_in_a_large_image_is_found(detector, hand, seen):
    small = cv2.resize(hand, (80, 80), interpolation=cv2.INTER_AREA)
    found = detector.detect(canvas(1600, 1200, (small, 1300, 900)))
    assert len(found) == 1
    # Pixel 0 of the small hand is the middle of pixels 0 to 3 of the large one.
    assert offset_px(found[0], (seen.keypoints_px - 160 - 1.5) / 4 + (1300, 900)) < 4


@pytest.mark.parametrize('streaming', [False, True])
def test_nothing_is_found_where_nothing_is(streaming):
    detector = MediaPipeDetector(streaming=streaming)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    plain = np.full((240, 320, 3), BACKGROUND, np.uint8)
    for image in (np.zeros((240, 320, 3), np.uint8), plain, noise, np.full((8, 500, 3), 255, np.uint8)):
        assert detector.detect(image) == []
    detector.close()


def test_a_stream_follows_a_hand_until_it_is_gone(hand, seen):
    detector = MediaPipeDetector(streaming=True)
    for step in range(6):
        (found,) = detector.detect(canvas(640, 640, (hand, 100 + 10 * step, 160)))
        assert found.side == 'left'
        assert offset_px(found, seen.keypoints_px + (10 * step - 60, 0)) < 8
    assert detector.detect(np.full((640, 640, 3), BACKGROUND, np.uint8)) == []
    (back,) = detector.detect(canvas(640, 640, (hand, 300, 160)))
    assert offset_px(back, seen.keypoints_px + (140, 0)) < 8
    detector.close()


@pytest.mark.parametrize('streaming', [False, True])
def test_hands_that_are_known_are_not_looked_for(hand, seen, streaming):
    detector = MediaPipeDetector(streaming=streaming)
    both = canvas(1000, 640, (hand, 80, 160), (mirrored(hand), 600, 160))
    everything = detector.detect(both, known_px=())
    assert len(everything) == 2
    for known, other in (everything, everything[::-1]):
        (found,) = detector.detect(both, known_px=[known.keypoints_px])
        assert found.side == other.side and offset_px(found, other.keypoints_px) < 8
    assert detector.detect(both, known_px=[each.keypoints_px for each in everything]) == []
    # What was seen in the frame before does not count
    (moved,) = detector.detect(canvas(640, 640, (hand, 300, 160)), known_px=())
    assert offset_px(moved, seen.keypoints_px + (140, 0)) < 8
    detector.close()


def test_a_box_gives_what_the_whole_image_gives(detector, picture, seen):
    (found,) = detector.detect(picture, [HandBox('left', seen.bbox_px)])
    assert (found.side, found.score > 0.8, found.side_score > 0.8) == ('left', True, True)
    assert offset_px(found, seen.keypoints_px) < 6
    np.testing.assert_array_equal(found.bbox_px, seen.bbox_px)


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_a_box_finds_turned_hands_too(detector, picture, quarters):
    turned = np.ascontiguousarray(np.rot90(picture, quarters))
    (whole,) = detector.detect(turned)
    (found,) = detector.detect(turned, [HandBox('left', whole.bbox_px)])
    assert offset_px(found, whole.keypoints_px) < 6


def test_boxes_choose_among_hands(detector, hand):
    both = canvas(1000, 640, (hand, 80, 160), (mirrored(hand), 600, 160))
    boxes = [
        HandBox('right', np.array([600, 190, 890, 460])),
        HandBox('left', np.array([110, 190, 350, 460])),
    ]
    right, left = detector.detect(both, boxes)
    assert (right.side, left.side) == ('right', 'left')
    assert right.keypoints_px[:, 0].min() > 500 > left.keypoints_px[:, 0].max()


def test_a_box_without_a_hand_is_reported_not_lost(detector, picture, seen):
    empty = HandBox('right', np.array([10, 10, 110, 110]), 0.7)
    outside = HandBox('left', np.array([5000, 5000, 5100, 5100]))
    found = detector.detect(picture, [empty, HandBox('left', seen.bbox_px), outside])
    assert [d.score > 0 for d in found] == [False, True, False]
    assert found[0].side == 'right'
    assert found[0].keypoints_px is None
    assert (found[0].score, found[0].side_score) == (0.0, 0.0)
    np.testing.assert_array_equal(found[0].bbox_px, empty.bbox_px)
    assert detector.detect(picture, []) == []


def test_one_hand_does_not_fill_two_boxes(detector, picture, seen):
    found = detector.detect(picture, [HandBox('right', seen.bbox_px), HandBox('left', seen.bbox_px)])
    assert [d.side for d in found] == ['right', 'left']
    assert found[0].keypoints_px is None
    assert found[1].keypoints_px is not None


def test_the_side_of_a_box_is_kept_but_doubted(detector, picture, seen):
    (found,) = detector.detect(picture, [HandBox('right', seen.bbox_px)])
    assert found.side == 'right'
    assert found.side_score < 0.2


@pytest.mark.parametrize('bbox', [[10, 10, 10, 50], [50, 50, 10, 10], [0, 0, np.nan, 5]])
def test_an_empty_box_is_an_error(detector, picture, bbox):
    with pytest.raises(FrameError, match='box'):
        detector.detect(picture, [HandBox('left', np.array(bbox, np.float32))])


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((480, 640), np.uint8),
        np.zeros((480, 640, 4), np.uint8),
        np.zeros((480, 640, 3), np.float32),
        np.zeros((7, 640, 3), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_what_is_no_image_is_a_frame_error(detector, image):
    with pytest.raises(FrameError, match='image'):
        detector.detect(image)


def test_views_into_other_arrays_are_fine(detector, picture, seen):
    bgr = np.ascontiguousarray(picture[..., ::-1])
    (found,) = detector.detect(bgr[..., ::-1])
    assert offset_px(found, seen.keypoints_px) < 1e-3


@pytest.mark.parametrize('setting', [{'max_hands': 0}, {'min_score': 1.5}, {'min_score': float('nan')}])
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ConfigurationError):
        MediaPipeDetector(**setting)


def test_it_writes_nothing_to_the_terminal_and_leaves_stderr_alone():
    code = (
        'import sys, numpy as np\n'
        'from hand_mesh_ros.detection.mediapipe import MediaPipeDetector\n'
        'assert "mediapipe" not in sys.modules\n'
        'detector = MediaPipeDetector()\n'
        'detector.detect(np.zeros((64, 64, 3), np.uint8))\n'
        'detector.close()\n'
        'print("still here", file=sys.stderr)\n'
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('', 'still here\n')


@pytest.mark.parametrize('preparation', ['', 'import io, sys; sys.stderr = io.StringIO()'])
def test_it_works_where_the_process_has_no_stderr(preparation):
    code = (
        f'{preparation}\n'
        'import numpy as np\n'
        'from hand_mesh_ros.detection.mediapipe import MediaPipeDetector\n'
        'detector = MediaPipeDetector()\n'
        'print(detector.detect(np.zeros((64, 64, 3), np.uint8)))\n'
        'detector.close()\n'
    )
    root = Path(__file__).resolve().parent.parent
    command = ['sh', '-c', 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, '[]\n')


def _real_samples(folder: Path, name: str) -> list[dict]:
    samples = json.loads((folder / 'index.json').read_text())['samples']
    return [s for s in samples if s['image'].startswith(name + '/')]


def _rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _error(detection: Detection, sample: dict) -> float:
    """Mean distance of the visible keypoints in sides of their box."""
    truth, visible = np.array(sample['j2d']), np.array(sample['vis']) > 0
    distances = np.linalg.norm(detection.keypoints_px - truth, axis=1)[visible]
    return float(distances.mean() / np.ptp(truth[visible], axis=0).max())


def test_photographs(real_images, detector):
    samples = _real_samples(real_images, 'ge')[::8]
    for sample in samples:
        found = detector.detect(_rgb(real_images / sample['image']))
        assert [d.side for d in found] == [sample['side']], sample['image']
        assert _error(found[0], sample) < 0.08, sample['image']
        truth = np.array(sample['j3d'])
        for axis in range(3):  # x right, y down, z forward, as in the camera frame of the annotation
            assert np.corrcoef(found[0].landmarks_world[:, axis], truth[:, axis])[0, 1] > 0.3, sample['image']


def test_photographs_with_hands_that_fill_them(real_images, detector):
    samples = _real_samples(real_images, 'freihand')
    found = [detector.detect(_rgb(real_images / s['image'])) for s in samples]
    assert sum(bool(f) and f[0].side == s['side'] for f, s in zip(found, samples, strict=True)) >= 7


def test_photographs_with_boxes(real_images, detector):
    errors = []
    for sample in _real_samples(real_images, 'freihand') + _real_samples(real_images, 'panoptic'):
        points = np.array(sample['j2d'])[np.array(sample['vis']) > 0]
        box = HandBox(sample['side'], np.concatenate([points.min(axis=0), points.max(axis=0)]))
        (found,) = detector.detect(_rgb(real_images / sample['image']), [box])
        assert found.keypoints_px is not None, sample['image']
        assert found.side == sample['side']
        errors.append(_error(found, sample))
    assert np.mean(errors) < 0.13
