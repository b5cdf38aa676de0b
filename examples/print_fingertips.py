#!/usr/bin/env python3
"""Print where the fingertips are, from the node's messages and from TF, which say the same.

Needs rclpy and the built messages, nothing else of hand_mesh_ros:

    python3 examples/print_fingertips.py [--once] [--ros-args -r hands:=/camera/hand_mesh/hands]
"""

import math
import sys

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from hand_mesh_ros.msg import HandMesh, HandMeshArray

FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')
TIP_KEYPOINTS = (4, 8, 12, 16, 20)  # of the 21 keypoints
KEPT_STAMPS = 30


def rotated(q, v):
    """Vector v turned by the quaternion q: v + 2 w (u x v) + 2 u x (u x v), with u the vector part of q."""
    u = (q.x, q.y, q.z)
    c = cross(u, v)
    d = cross(u, c)
    return tuple(v[i] + 2.0 * (q.w * c[i] + d[i]) for i in range(3))


def cross(a, b):
    """The cross product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


class FingertipPrinter(Node):
    """Waits for hands and frames of the same stamp and prints both."""

    def __init__(self):
        """Subscribe."""
        super().__init__('fingertip_printer')
        self.hands = {}
        self.frames = {}
        self.printed = 0
        self.create_subscription(HandMeshArray, 'hands', self.on_hands, 10)
        self.create_subscription(TFMessage, '/tf', self.on_tf, 100)

    def on_hands(self, message):
        """Keep the hands of an image."""
        if message.hands:
            self.keep(self.hands, message.header, message.hands)

    def on_tf(self, message):
        """Keep the frames of an image."""
        frames = {transform.child_frame_id: transform for transform in message.transforms}
        for name, transform in frames.items():
            if name.endswith(('right_hand', 'left_hand')):
                self.keep(self.frames, transform.header, frames)
                break

    def keep(self, where, header, what):
        """Print when the other half has come; forget what is old."""
        key = (header.stamp.sec, header.stamp.nanosec, header.frame_id)  # of one camera
        where[key] = what
        if key in self.hands and key in self.frames:
            self.show(key, self.hands.pop(key), self.frames.pop(key))
        while len(where) > KEPT_STAMPS:
            del where[next(iter(where))]

    def show(self, key, hands, frames):
        """Print the fingertips of an image; of each side the first hand."""
        for side, name in ((HandMesh.RIGHT, 'right'), (HandMesh.LEFT, 'left')):
            hand = next((hand for hand in hands if hand.side == side), None)
            # The parameter tf_prefix may stand before the name.
            frame = next((frame for frame in frames if frame.endswith(f'{name}_hand')), None)
            if hand is None or frame is None:
                continue
            wrist = frames[frame].transform
            for finger, keypoint in zip(FINGERS, TIP_KEYPOINTS, strict=True):
                from_hands = tuple(float(x) for x in hand.keypoints_3d[3 * keypoint : 3 * keypoint + 3])
                tip = frames[f'{frame}_{finger}_tip'].transform.translation
                turned = rotated(wrist.rotation, (tip.x, tip.y, tip.z))
                origin = wrist.translation
                from_tf = (origin.x + turned[0], origin.y + turned[1], origin.z + turned[2])
                print(
                    f'{key[0]}.{key[1]:09d} {name:>5} {finger:<6} '
                    + 'hands {:+.6f} {:+.6f} {:+.6f}  tf {:+.6f} {:+.6f} {:+.6f}'.format(
                        *from_hands, *from_tf
                    )
                    + f'  apart {math.dist(from_hands, from_tf):.1e} m',
                    flush=True,
                )
        self.printed += 1


def main():
    """Print until interrupted, or with --once until one image has been printed."""
    rclpy.init()
    node = FingertipPrinter()
    try:
        while rclpy.ok() and not ('--once' in sys.argv and node.printed):
            rclpy.spin_once(node, timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
