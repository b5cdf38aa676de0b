"""Hands as TF frames: one at the wrist, and one at each fingertip as its child."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from hand_mesh_ros.hand import Hand
from hand_mesh_ros.hand_model.keypoints import FINGERS
from hand_mesh_ros.hand_model.rotations import axis_angles


def frame_names(hands: Sequence[Hand], prefix: str = '') -> list[str]:
    """A frame name for each hand: ``right_hand``, ``left_hand``; a second right hand is ``right_hand_2``.

    Of two that are followed the first is that which has been there for longer: scores change places.
    """
    names = [''] * len(hands)
    seen: Counter[str] = Counter()
    for i in sorted(range(len(hands)), key=lambda i: hands[i].track_id):
        side = hands[i].side
        seen[side] += 1
        names[i] = f'{prefix}{side}_hand' + (f'_{seen[side]}' if seen[side] > 1 else '')
    return names


def message_from_hands(header: Header, hands: Sequence[Hand], prefix: str = '') -> TFMessage:
    """The frames of all hands of one image, under that image's stamp and frame.

    Each hand frame is a child of ``header.frame_id``, each fingertip frame a child of its hand frame,
    named e.g. ``right_hand_thumb_tip``.
    """
    transforms = []
    for name, hand in zip(frame_names(hands, prefix), hands, strict=True):
        transforms.append(_stamped(header, header.frame_id, name, hand.T_camera_hand))
        R, t = hand.T_camera_hand[:3, :3], hand.T_camera_hand[:3, 3]
        T_hand_camera = np.eye(4)
        T_hand_camera[:3, :3], T_hand_camera[:3, 3] = R.T, -R.T @ t
        for finger, T_hand_tip in zip(FINGERS, T_hand_camera @ hand.T_camera_fingertips, strict=True):
            transforms.append(_stamped(header, name, f'{name}_{finger}_tip', T_hand_tip))
    return TFMessage(transforms=transforms)


def _stamped(header: Header, parent: str, child: str, T_parent_child: np.ndarray) -> TransformStamped:
    x, y, z = T_parent_child[:3, 3].tolist()
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(T_parent_child[:3, :3]))
    return TransformStamped(
        header=Header(stamp=header.stamp, frame_id=parent), child_frame_id=child, transform=transform
    )


def _quaternion(rotation: np.ndarray) -> Quaternion:
    x, y, z = axis_angles(rotation).tolist()
    angle = math.hypot(x, y, z)
    share = math.sin(angle / 2.0) / angle if angle > 0.0 else 0.5
    return Quaternion(x=share * x, y=share * y, z=share * z, w=math.cos(angle / 2.0))
