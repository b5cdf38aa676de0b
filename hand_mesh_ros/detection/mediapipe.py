"""Hands with MediaPipe Hands: palms, then landmarks, in the whole image or in boxes from outside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from hand_mesh_ros.crops import Square, crop_square, upright_turn
from hand_mesh_ros.detection.detection import (
    SAME_HAND,
    Detection,
    HandBox,
    box_around,
    box_in_image,
    box_iou,
    hand_distance,
)
from hand_mesh_ros.detection.mediapipe_networks import (
    LANDMARK_CROP_PX,
    PALM_CROP_PX,
    LandmarkNetwork,
    PalmNetwork,
    Reading,
)
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.image import checked_rgb

#: Palms are cheap to refute by the landmarks' presence score, so many are let through.
_MIN_PALM_SCORE = 0.3

#: A hand that fills the image needs a margin: views of so many times the image's longer side.
_MARGINS = (1.5, 2.0)

#: A hand too small for the view of the whole image is sought in tiles of these sides, as parts of the
#: image's longer side, overlapping. Tiles of fewer pixels than that hold nothing that the image did not.
_TILES = (0.6, 0.4)
_MIN_TILE_PX = 96

#: Hands in boxes are read in a square of this many box sides, turned so, until one agrees so well.
_BOX_MARGIN = 1.6
_BOX_TURNS = (0.0, math.pi / 2.0, -math.pi / 2.0, math.pi)
_GOOD_AGREEMENT = 0.6

#: A hand whose own box overlaps a given box less than that (intersection over union) is another hand.
_MIN_BOX_IOU = 0.25

_INDEX_MCP, _MIDDLE_MCP, _RING_MCP = 5, 9, 13

#: Without the fingers' outer joints, so that the square does not jump when they bend.
_PALM_AND_PIP = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


class MediaPipeDetector:
    """Finds hands with the networks of MediaPipe Hands, which its wheel carries.

    A still image that shows no hand at first sight is searched: with margin around it, for hands that
    fill it, then in tiles, for small ones. The palm network finds hands however they are turned. In a
    stream, hands are followed from frame to frame, and a frame without hands costs one more view of
    the search, in turn.

    ``Detection.score`` is the presence score of the landmark network. Not thread-safe: one detector a
    thread, and with ``streaming`` one a stream.
    """

    def __init__(
        self, max_hands: int = 2, min_score: float = 0.5, streaming: bool = False, search: bool = True
    ) -> None:
        """Load the networks, which takes about a second.

        :param max_hands: the most hands to find in an image; boxes are not limited.
        :param min_score: hands scored lower are left out, 0..1.
        :param streaming: the images are frames of one stream.
        :param search: look closer where nothing is found at first sight.
        :raises ConfigurationError: a setting that cannot work.
        """
        if max_hands < 1:
            raise ConfigurationError(f'max_hands must be at least 1, got {max_hands}')
        if not 0.0 <= min_score <= 1.0:
            raise ConfigurationError(f'min_score must be within 0 to 1, got {min_score}')
        self._max_hands = max_hands
        self._min_score = min_score
        self._streaming = streaming
        self._search = search
        self._tracked: list[Reading] = []
        self._empty_frames = 0
        self._palms = PalmNetwork(_MIN_PALM_SCORE)
        self._landmarks = LandmarkNetwork()

    def detect(
        self,
        image: np.ndarray,
        boxes: Sequence[HandBox] | None = None,
        known_px: Sequence[np.ndarray] | None = None,
    ) -> list[Detection]:
        """Hands in ``image`` (H,W,3) uint8 RGB, best first.

        With ``boxes`` there is one detection for each, in their order: of its box and side, with the
        landmarks of the hand that agrees best with both. ``side_score`` is then the network's
        confidence in the given side. A box in which no hand is found, or only one that agrees better
        with another box, gives a detection without landmarks, both of whose scores are 0.

        With ``known_px``, hands followed by someone else, nothing is followed here: the image is searched,
        and hands with these keypoints (21,2) are left out. They count for ``max_hands``.

        :raises FrameError: an image that is none, or a box that is empty.
        """
        image = checked_rgb(image)
        if boxes is not None:
            return self._detect_in_boxes(image, boxes)
        if known_px is not None:
            hands = [_known_hand(points) for points in known_px]
        else:
            hands = self._follow(image) if self._streaming else []
        if len(hands) < self._max_hands:
            hands = self._look(image, hands)
        hands = sorted(hands, key=lambda hand: -hand.presence)[: self._max_hands]
        self._empty_frames = 0 if hands else self._empty_frames + 1
        hands = [hand for hand in hands if hand.presence <= 1.0]  # those that are not known already
        self._tracked = hands if known_px is None else []
        height, width = image.shape[:2]
        return [
            _detection(hand, hand.side, hand.side_score, box_in_image(hand.keypoints_px, width, height))
            for hand in hands
        ]

    def close(self) -> None:
        """Release the networks; the detector cannot be used after."""
        self._palms.close()
        self._landmarks.close()

    def _read(self, image: np.ndarray, square: Square) -> Reading:
        return self._landmarks.read(crop_square(image, square, LANDMARK_CROP_PX))

    def _follow(self, image: np.ndarray) -> list[Reading]:
        """The hands of the frame before, where they are now."""
        return self._distinct([], (self._read(image, _square_of(hand)) for hand in self._tracked))

    def _look(self, image: np.ndarray, known: list[Reading]) -> list[Reading]:
        """The known hands and those of the first view that shows any."""
        height, width = image.shape[:2]
        whole = Square.around_image(width, height)
        hands = self._look_at(image, whole, known)
        if hands or not self._search:
            return hands
        closer = list(_closer_views(width, height))
        if self._streaming:
            closer = [closer[self._empty_frames % len(closer)]]
        for view in closer:
            hands = self._look_at(image, view, known)
            if hands:
                break
        return hands

    def _look_at(self, image: np.ndarray, view: Square, known: list[Reading]) -> list[Reading]:
        palms = self._palms.find(crop_square(image, view, PALM_CROP_PX))
        squares = [p.hand_square for p in palms if not any(_is_near(p.hand_square, hand) for hand in known)]
        return self._distinct(known, (self._read(image, square) for square in squares))

    def _distinct(self, known: list[Reading], readings: Iterator[Reading]) -> list[Reading]:
        """The known hands and those read, up to ``max_hands``; of two readings of one hand, the better."""
        hands = list(known)
        for reading in readings:
            if len(hands) == self._max_hands:
                break
            if reading.presence < self._min_score:
                continue
            same = [hand for hand in hands if _is_same_hand(hand, reading)]
            if all(hand.presence < reading.presence for hand in same):
                hands = [hand for hand in hands if not any(hand is twin for twin in same)] + [reading]
        return hands

    def _detect_in_boxes(self, image: np.ndarray, boxes: Sequence[HandBox]) -> list[Detection]:
        found = [self._read_in_box(image, box) for box in boxes]
        agreements = [_agreement(hand, box) if hand else 0.0 for hand, box in zip(found, boxes, strict=True)]
        detections: dict[int, Detection] = {}
        taken: list[Reading] = []
        for i in sorted(range(len(boxes)), key=lambda i: -agreements[i]):
            hand = found[i]
            if hand is None or any(_is_same_hand(hand, other) for other in taken):
                detections[i] = _empty_detection(boxes[i])
            else:
                taken.append(hand)
                detections[i] = _detection(hand, boxes[i].side, _side_score(hand, boxes[i]), boxes[i].bbox_px)
        return [detections[i] for i in range(len(boxes))]

    def _read_in_box(self, image: np.ndarray, box: HandBox) -> Reading | None:
        """The hand that agrees best with the box and its side; None if there is none."""
        best: Reading | None = None
        for turn in _BOX_TURNS:
            # The first reading tells which way the hand is turned, the second is read with it upright.
            first = self._read(image, _box_square(box, turn))
            reading = self._read(image, _square_of(first))
            if reading.presence < self._min_score:
                continue
            if box_iou(box_around(reading.keypoints_px), box.bbox_px) < _MIN_BOX_IOU:
                continue
            if best is None or _agreement(reading, box) > _agreement(best, box):
                best = reading
            if _agreement(best, box) > _GOOD_AGREEMENT:
                break
        if best is None:
            return None
        # The square of the second reading still depends on the box; one more settles the hand in its own.
        settled = self._read(image, _square_of(best))
        return settled if settled.presence >= self._min_score else best


def _closer_views(width: int, height: int) -> Iterator[Square]:
    """Where a hand may be that the view of the whole image did not show, cheapest first."""
    for margin in _MARGINS:
        yield Square.around_image(width, height).scaled(margin)
    for part in _TILES:
        side = part * max(width, height)
        if side < _MIN_TILE_PX:
            return
        for y in _tile_centers(height, side):
            for x in _tile_centers(width, side):
                yield Square((x, y), side)


def _tile_centers(length: int, side: float) -> list[float]:
    """Middles of the fewest tiles that cover ``length`` pixels, evenly spread, overlapping by a third."""
    if length <= side:
        return [(length - 1) / 2.0]
    steps = math.ceil(1.5 * (length - side) / side)
    return [float(c) for c in np.linspace((side - 1) / 2.0, length - 1 - (side - 1) / 2.0, steps + 1)]


def _square_of(hand: Reading) -> Square:
    """The upright square in which to read a hand again, as MediaPipe's HandLandmarkLandmarksToRoi."""
    points = hand.keypoints_px
    knuckles = (points[_INDEX_MCP] + 2.0 * points[_MIDDLE_MCP] + points[_RING_MCP]) / 4.0
    turn = upright_turn(points[0], knuckles)
    return Square.around_points(points[list(_PALM_AND_PIP)], turn).shifted(0.0, -0.1).scaled(2.0)


def _box_square(box: HandBox, turn_rad: float) -> Square:
    x0, y0, x1, y1 = (float(n) for n in box.bbox_px)
    if not (np.isfinite(box.bbox_px).all() and x0 < x1 and y0 < y1):
        raise FrameError(f'hand box {box.bbox_px} is empty; it is x0, y0, x1, y1 in pixels')
    return Square.around_box(box.bbox_px, turn_rad).scaled(_BOX_MARGIN)


def _is_near(square: Square, hand: Reading) -> bool:
    """Whether reading that square would most likely give that hand again (overlap over a half)."""
    known = _square_of(hand)
    return math.dist(square.center_px, known.center_px) < max(square.side_px, known.side_px) / 3.0


def _is_same_hand(a: Reading, b: Reading) -> bool:
    return hand_distance(a.keypoints_px, b.keypoints_px) < SAME_HAND


def _known_hand(keypoints_px: np.ndarray) -> Reading:
    """A hand that somebody else follows: surer than any that is read."""
    points = np.asarray(keypoints_px, np.float64)
    return Reading(math.inf, 'right', 0.5, points, np.zeros(21), np.zeros((21, 3)))


def _side_score(hand: Reading, box: HandBox) -> float:
    return hand.side_score if hand.side == box.side else 1.0 - hand.side_score


def _agreement(hand: Reading, box: HandBox) -> float:
    return hand.presence * box_iou(box_around(hand.keypoints_px), box.bbox_px) * _side_score(hand, box)


def _detection(hand: Reading, side: Side, side_score: float, bbox_px: np.ndarray) -> Detection:
    return Detection(
        side=side,
        side_score=side_score,
        score=hand.presence,
        bbox_px=np.asarray(bbox_px, np.float32),
        keypoints_px=hand.keypoints_px.astype(np.float32),
        keypoints_depth=hand.keypoints_depth.astype(np.float32),
        landmarks_world=hand.landmarks_world.astype(np.float32),
    )


def _empty_detection(box: HandBox) -> Detection:
    return Detection(box.side, 0.0, 0.0, np.asarray(box.bbox_px, np.float32), None, None, None)
