"""Ids of hands across the border of two segments, each of which was tracked on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hand_mesh_ros.detection.detection import hand_distance
from hand_mesh_ros.hand import UNTRACKED, Hand

#: Keypoints of one hand, seen by two trackers in one frame, lie nearer than this on average, in sides of its
#: box.
_SAME = 0.3

#: What is known of the hands of a frame: id and keypoints (21,2).
Seen = list[tuple[int, Any]]


class Identities:
    """Gives the hands of a segment the ids that they had in the one before."""

    def __init__(self, next_id: int = 1, before: Sequence[Seen] = ()) -> None:
        """``before``: the hands of the last frames before the segment, one list for each frame."""
        self.next_id = next_id
        self._before = before
        self._ids: dict[int, int] = {}  #: id of this segment's tracker -> id in the bag

    def warmed_up(self, frames: Sequence[Sequence[Hand]]) -> None:
        """What the segment's tracker saw in the same frames: which of its ids is which."""
        taken: set[int] = set()
        # The newest first, which both end with; one may go back farther than the other.
        for hands, seen in zip(reversed(frames), reversed(self._before), strict=False):
            pairs = [
                (hand_distance(hand.keypoints_2d, np.asarray(points, float)), hand.track_id, known)
                for hand in hands
                for known, points in seen
            ]
            for distance, own, known in sorted(pairs):
                if distance < _SAME and own not in self._ids and known not in taken:
                    self._ids[own] = known
                    taken.add(known)

    def named(self, hands: Sequence[Hand]) -> list[Hand]:
        """The hands with their ids in the bag."""
        return [replace(hand, track_id=self._id(hand.track_id)) for hand in hands]

    def _id(self, own: int) -> int:
        if own == UNTRACKED:
            return own
        if own not in self._ids:
            self._ids[own] = self.next_id
            self.next_id += 1
        return self._ids[own]


def seen(hands: Sequence[Hand]) -> Seen:
    """What :class:`Identities` needs of the hands of a frame, ready for JSON."""
    return [
        (hand.track_id, np.asarray(hand.keypoints_2d, float).tolist())
        for hand in hands
        if hand.track_id != UNTRACKED and np.isfinite(hand.keypoints_2d).all()
    ]
