"""Hands as RViz markers: the mesh, the keypoints, the bones between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from hand_mesh_ros.hand import UNTRACKED, Hand, Side
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS
from hand_mesh_ros.rendering.overlay import SIDE_COLOURS

#: RViz drops a marker that is not renewed for this long, so none is left when the node dies.
_LIFETIME = Duration(nanosec=300_000_000)
_KEYPOINT_DIAMETER_M = 0.008
_BONE_WIDTH_M = 0.003
_BONES = [(parent, child) for child, parent in enumerate(KEYPOINT_PARENTS) if parent >= 0]

#: What tells one marker from another in RViz: namespace and id.
_Key = tuple[str, int]


class HandMarkers:
    """Makes the markers of a stream of images; remembers which are shown, to delete those that are gone."""

    def __init__(self, faces: Mapping[Side, np.ndarray]) -> None:
        """``faces``: (F,3) vertex numbers of each side's mesh."""
        self._corners = {side: triangles.reshape(-1).tolist() for side, triangles in faces.items()}
        self._shown: set[_Key] = set()

    def message(self, header: Header, hands: Sequence[Hand]) -> MarkerArray:
        """Markers of all hands of one image, under that image's header."""
        markers = []
        for number, hand in enumerate(hands):
            markers += self._markers_of(header, hand, number if hand.track_id == UNTRACKED else hand.track_id)
        shown = {(marker.ns, marker.id) for marker in markers}
        gone = [
            Marker(header=header, ns=ns, id=number, action=Marker.DELETE)
            for ns, number in sorted(self._shown - shown)
        ]
        self._shown = shown
        return MarkerArray(markers=gone + markers)

    def _markers_of(self, header: Header, hand: Hand, number: int) -> list[Marker]:
        # The same Point object for every triangle around a vertex: 778 objects instead of 4614.
        vertices = _points(hand.vertices)
        keypoints = _points(hand.keypoints_3d)
        mesh = _marker(header, hand.side, 'mesh', number, Marker.TRIANGLE_LIST, 1.0, alpha=0.9)
        mesh.points = [vertices[i] for i in self._corners[hand.side]]
        spheres = _marker(header, hand.side, 'keypoints', number, Marker.SPHERE_LIST, _KEYPOINT_DIAMETER_M)
        spheres.points = keypoints
        bones = _marker(header, hand.side, 'bones', number, Marker.LINE_LIST, _BONE_WIDTH_M)
        bones.points = [keypoints[i] for bone in _BONES for i in bone]
        return [mesh, spheres, bones]


def _marker(
    header: Header, side: Side, part: str, number: int, kind: int, scale: float, alpha: float = 1.0
) -> Marker:
    red, green, blue = (value / 255.0 for value in SIDE_COLOURS[side])
    marker = Marker(
        header=header,
        ns=f'{side}/{part}',
        id=number,
        type=kind,
        action=Marker.ADD,
        scale=Vector3(x=scale, y=scale, z=scale),
        color=ColorRGBA(r=red, g=green, b=blue, a=alpha),
        lifetime=_LIFETIME,
    )
    marker.pose.orientation.w = 1.0
    return marker


def _points(positions: np.ndarray) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in positions.tolist()]
