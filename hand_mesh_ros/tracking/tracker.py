"""Which hand of a frame is which of the frames before; it sees neither images nor networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from hand_mesh_ros.detection.detection import SAME_HAND, Detection
from hand_mesh_ros.hand import Hand
from hand_mesh_ros.tracking.track import Place, Track

#: Frames between two looks for other hands while fewer are followed than there may be.
DETECT_EVERY = 6

#: Frames between two looks of the detector at a hand that is followed: for its side, and for having lost it
#: unnoticed.
_CHECK_EVERY = 30

#: A hand that scores less than this may have been lost unnoticed, and is looked at sooner.
_POOR = 0.35

#: A hand that is back within this many frames is the same as before, if it is not farther from where it was
#: than this, in sides of its box. One that seems to be of the other side counts as twice as far.
_REMEMBERED, _RETURN = 15, 1.5
_OTHER_SIDE = 2.0

#: Looked for after a loss, beyond the usual, in this many frames.
_SEARCHED = 2

#: A hand does not go farther than this between frames, in sides of its box, and its box does not grow or
#: shrink by more than this: it would have left the crop it was looked for in.
_JUMP, _GROWTH = 0.8, 2.0

#: A detector's hand that is this near to one that is followed, in sides of its box, is that one, which then
#: went astray; if they are not the same anyway.
_ASTRAY = 0.5

#: A hand that has been followed for fewer frames than this yields to an older one at the same place.
_YOUNG = 5


@dataclass(frozen=True, eq=False)
class Assigned:
    """A detection that is to be reconstructed, and the hand that it is of."""

    detection: Detection  #: of the side that is known of that hand
    track: Track


class HandTracker:
    """Follows the hands of one stream.

    Of each frame: :meth:`begin_frame`; then, where hands can be looked for where they were, :meth:`followed`
    and :meth:`saw_followed`; then, if :attr:`detector_due` or nothing can be followed, :meth:`assigned`
    takes all that a detector found and :meth:`saw_assigned` what became of it. :meth:`hands` then tells the
    hands of the frame. No id is used twice.
    """

    def __init__(self, max_hands: int = 2, detect_every: int = DETECT_EVERY) -> None:
        """Of at most ``max_hands`` hands, looking for others every ``detect_every`` frames."""
        self._max_hands, self._detect_every = max_hands, detect_every
        self._ids = count(1)
        self._tracks: list[Track] = []
        self._size = (0, 0)
        self._undetected = 0
        self._looked: list[Track] = []

    def forget(self) -> None:
        """No hand that comes is one that was there."""
        self._tracks, self._looked = [], []

    def begin_frame(self, width: int, height: int) -> None:
        """The next image, of that size, comes; hands in pixels of another size are forgotten."""
        if self._size != (width, height):
            self.forget()
        self._size = (width, height)
        self._undetected += 1
        for track in self._tracks:
            track.begin_frame()
        self._tracks = [track for track in self._tracks if track.unseen <= _REMEMBERED]

    def followed(self) -> list[Detection]:
        """Where to look for the hands of the frame before."""
        self._looked = [
            track
            for track in self._tracks
            if track.unseen == 1 and track.expected.can_be_followed(*self._size)
        ]
        return [_followed(track) for track in self._looked]

    def saw_followed(self, looked_for: Sequence[Detection], hands: Sequence[Hand | None]) -> None:
        """What was found where :meth:`followed` said: the hands, or None."""
        expected = {track.id: track.expected for track in self._looked}
        for track, detection, hand in zip(self._looked, looked_for, hands, strict=True):
            if hand is not None and not _jumped(expected[track.id], Place.of_hand(hand)):
                track.see(detection, hand)
        self._drop_twins(expected)

    @property
    def detector_due(self) -> bool:
        """Whether the detector is to look at this frame."""
        seen = self._seen
        if not seen or any(1 <= track.unseen <= _SEARCHED for track in self._tracks):
            return True
        if self._undetected < self._detect_every:
            return False
        return len(seen) < self._max_hands or any(map(_needs_reading, seen))

    def known_px(self) -> list[np.ndarray]:
        """Keypoints (21,2) of the hands that the detector need not look at."""
        known = [track.place.keypoints_px for track in self._seen if not _needs_reading(track)]
        return [points for points in known if points is not None]

    def assigned(self, detections: Sequence[Detection]) -> list[Assigned]:
        """What of a detector's findings, best first, is to be reconstructed.

        Hands that are seen already are not, unless the detector saw them elsewhere, nor those beyond the most
        that are followed. The detections vote on the sides.
        """
        self._undetected = 0
        for track in self._seen:
            if _needs_reading(track):
                track.unread = 0
        pairs = self._paired(detections)
        room = self._max_hands - len(self._seen)
        wanted = []
        for index, detection in enumerate(detections):
            track = pairs.get(index) or Track(0, detection.side, Place.of_detection(detection))
            track.vote(detection.side, detection.side_score)
            track.unread = 0
            if track.sighting is not None:
                needed = Place.of_detection(detection).distance(track.place) >= SAME_HAND
            else:
                needed, room = room > 0, room - 1
            if needed:
                wanted.append(Assigned(_of_side(detection, track), track))
        return wanted

    def saw_assigned(self, wanted: Sequence[Assigned], hands: Sequence[Hand | None]) -> None:
        """What :meth:`assigned` told to reconstruct came out as these hands, or None."""
        for each, hand in zip(wanted, hands, strict=True):
            if hand is not None:
                each.track.see(each.detection, hand)
                if not each.track.id:
                    each.track.id = next(self._ids)
                    self._tracks.append(each.track)

    def hands(self) -> list[tuple[Detection, Hand]]:
        """The hands of the frame, with their ids, and what each was found by."""
        return [
            (track.sighting[0], replace(track.sighting[1], track_id=track.id))
            for track in self._tracks
            if track.sighting is not None
        ]

    @property
    def _seen(self) -> list[Track]:
        """The hands that were seen in this frame."""
        return [track for track in self._tracks if track.sighting is not None]

    def _drop_twins(self, expected: dict[int, Place]) -> None:
        """Of two that were found at the same place, lose the one that came there from elsewhere."""
        by_merit = sorted(self._looked, key=lambda t: _merit(t, expected[t.id]), reverse=True)
        kept: list[Track] = []
        for track in by_merit:
            if track.sighting is None:
                continue
            if any(track.place.distance(other.place) < SAME_HAND for other in kept):
                track.lose(expected[track.id])
            else:
                kept.append(track)

    def _paired(self, detections: Sequence[Detection]) -> dict[int, Track]:
        """The hand that each of the detections is of, by its index; nearest first, one to one."""
        near = []
        for index, detection in enumerate(detections):
            place = Place.of_detection(detection)
            for number, track in enumerate(self._tracks):
                seen = track.sighting is not None
                distance = place.distance(track.place if seen else track.expected)
                if not seen and detection.side != track.side:
                    distance *= _OTHER_SIDE
                if distance < (_ASTRAY if seen else _RETURN):
                    near.append((distance, index, number))
        pairs: dict[int, Track] = {}
        taken: set[int] = set()
        for _, index, number in sorted(near):
            if index not in pairs and number not in taken:
                pairs[index] = self._tracks[number]
                taken.add(number)
        return pairs


def _followed(track: Track) -> Detection:
    place = track.expected
    assert place.keypoints_px is not None  # else it cannot be followed
    return Detection(
        side=track.side,
        side_score=track.side_score,
        score=1.0,
        bbox_px=place.bbox_px.astype(np.float32),
        keypoints_px=None,
        keypoints_depth=None,
        landmarks_world=None,
        followed_px=place.keypoints_px.astype(np.float32),
    )


def _of_side(detection: Detection, track: Track) -> Detection:
    return replace(detection, side=track.side, side_score=track.side_score)


def _needs_reading(track: Track) -> bool:
    poor = track.sighting is not None and track.sighting[1].score < _POOR
    return poor or not track.side_is_sure or track.unread >= _CHECK_EVERY


def _jumped(before: Place, after: Place) -> bool:
    """Whether a hand cannot have gone there since the frame before."""
    sizes = [np.ptp(place.bbox_px.reshape(2, 2), axis=0).max() for place in (before, after)]
    return before.distance(after) > _JUMP or max(sizes) > _GROWTH * min(sizes)


def _merit(track: Track, expected: Place) -> tuple[bool, float]:
    """Greater for the one of two hands at one place that is to keep it."""
    return track.frames >= _YOUNG, -track.place.distance(expected)
