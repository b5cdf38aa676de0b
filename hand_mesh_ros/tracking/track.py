"""One hand over time: where it was last, how it moves, and which side it is of by all that was said."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hand_mesh_ros.detection.detection import Detection, box_around, hand_distance
from hand_mesh_ros.hand import Hand, Side

#: Of the way that a hand went from one frame to the next, so much is expected once more.
_DAMPING = 0.5

#: What was said of the side in the past is worth at most this many detections.
_MOST_VOTES = 4.0

#: The other side is taken once it has this share of the votes; with less than this many votes, or a smaller
#: share than this for the side that is taken, that one is not sure.
_MAJORITY, _SURE_VOTES, _SURE_SHARE = 0.6, 2.0, 0.75

#: Fewer keypoints than this in the image, or all of them in so few pixels, are nothing to look for.
_LEAST_KEYPOINTS, _LEAST_PX = 7, 10.0

_OTHER: dict[Side, Side] = {'left': 'right', 'right': 'left'}


@dataclass(frozen=True, eq=False)
class Place:
    """Where a hand is in the image."""

    bbox_px: np.ndarray  #: (4,)
    keypoints_px: np.ndarray | None  #: (21,2), finite

    @classmethod
    def of_hand(cls, hand: Hand) -> Place:
        """Of a hand that was reconstructed."""
        known = np.isfinite(hand.keypoints_2d).all()
        return cls(np.asarray(hand.bbox_px, np.float64), hand.keypoints_2d.astype(float) if known else None)

    @classmethod
    def of_detection(cls, detection: Detection) -> Place:
        """Of what a detector saw."""
        keypoints = detection.keypoints_px
        if keypoints is None:
            return cls(np.asarray(detection.bbox_px, np.float64), None)
        # A given box is not the hand's own
        return cls(box_around(keypoints), np.asarray(keypoints, np.float64))

    def moved(self, way_px: np.ndarray) -> Place:
        """The same, (2,) pixels further."""
        keypoints = None if self.keypoints_px is None else self.keypoints_px + way_px
        return Place(self.bbox_px + np.tile(way_px, 2), keypoints)

    def distance(self, other: Place) -> float:
        """Mean distance of what is known of both, in sides of the larger one's box."""
        if self.keypoints_px is None or other.keypoints_px is None:
            return hand_distance(self.bbox_px.reshape(2, 2), other.bbox_px.reshape(2, 2))
        return hand_distance(self.keypoints_px, other.keypoints_px)

    def can_be_followed(self, width: int, height: int) -> bool:
        """Whether an image of that size shows enough there to look for the hand again."""
        points = self.keypoints_px
        if points is None or np.ptp(points, axis=0).max() < _LEAST_PX:
            return False
        inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(axis=1)
        return int(inside.sum()) >= _LEAST_KEYPOINTS


@dataclass(eq=False)
class Track:
    """A hand that is followed, or was until lately."""

    id: int  #: from 1; 0 before it was seen for the first time
    side: Side
    place: Place  #: where it was seen last
    sighting: tuple[Detection, Hand] | None = None  #: in this frame
    way_px: np.ndarray = field(default_factory=lambda: np.zeros(2))  #: from one frame to the next, (2,)
    frames: int = 0  #: in which it was seen
    unseen: int = 0  #: frames since it was seen last
    unread: int = 0  #: frames since a detector was let look at it
    _votes: dict[Side, float] = field(default_factory=lambda: {'left': 0.0, 'right': 0.0})

    @property
    def expected(self) -> Place:
        """Where it is to be looked for in a frame in which it was not seen yet."""
        # Nobody knows where a hand goes that is out of sight
        return self.place.moved(_DAMPING * self.way_px) if self.unseen <= 1 else self.place

    @property
    def side_score(self) -> float:
        """The share of the detector's votes that are for ``side``."""
        return self._votes[self.side] / max(sum(self._votes.values()), 1e-6)

    @property
    def side_is_sure(self) -> bool:
        """Whether it needs no further vote soon."""
        return sum(self._votes.values()) >= _SURE_VOTES and self.side_score >= _SURE_SHARE

    def vote(self, side: Side, score: float) -> None:
        """Take what a detector says of the side, with its confidence 0..1 in it."""
        total = sum(self._votes.values())
        keep = min(1.0, (_MOST_VOTES - 1.0) / total) if total else 1.0
        self._votes = {name: keep * votes for name, votes in self._votes.items()}
        self._votes[side] += score
        self._votes[_OTHER[side]] += 1.0 - score
        if self.side_score < 1.0 - _MAJORITY:
            self.side = _OTHER[self.side]

    def begin_frame(self) -> None:
        """It was not seen yet in the frame that begins."""
        self.sighting = None
        self.unseen += 1
        self.unread += 1

    def see(self, detection: Detection, hand: Hand) -> None:
        """It is seen as ``hand``, having been looked for by ``detection``."""
        place = Place.of_hand(hand)
        if self.sighting is None:
            self.way_px = _way(self.place, place) if self.unseen == 1 else np.zeros(2)
            self.frames += 1
        else:  # where it seemed to be first it was not
            self.way_px = np.zeros(2)
        self.sighting, self.place, self.unseen = (detection, hand), place, 0

    def lose(self, place: Place) -> None:
        """It is not what was seen in this frame: it was last known to be about ``place``."""
        self.sighting, self.place, self.way_px, self.unseen = None, place, np.zeros(2), 1


def _way(before: Place, after: Place) -> np.ndarray:
    """Pixels (2,)."""
    if before.keypoints_px is None or after.keypoints_px is None:
        return (after.bbox_px - before.bbox_px).reshape(2, 2).mean(axis=0)
    return (after.keypoints_px - before.keypoints_px).mean(axis=0)
