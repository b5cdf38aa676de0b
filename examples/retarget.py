#!/usr/bin/env python3
"""Print the joint angles that make a robot hand do as the hand before the camera does, live.

Needs rclpy, and dex-retargeting with the URDF of your robot hand, which its configurations name
(https://github.com/dexsuite/dex-urdf has some); nothing of hand_mesh_ros but the running node:

    pip install dex-retargeting==0.4.6      # later ones want NumPy 2, which ROS Jazzy's messages do not take
    python3 examples/retarget.py CONFIG.yml URDF_FOLDER [TOPIC]

CONFIG.yml is one of dex_retargeting/configs/teleop, e.g. allegro_hand_right.yml, or your own. TOPIC is by
default /camera/hand_mesh/retargeting/right.
"""

import contextlib
import sys

import numpy as np
import rclpy
from dex_retargeting.retargeting_config import RetargetingConfig
from geometry_msgs.msg import PolygonStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args


class Retargeter(Node):
    """Takes keypoints, prints joint angles."""

    def __init__(self, retargeting, topic):
        """Subscribe to the keypoints of hands of one side."""
        super().__init__('retargeter')
        self.retargeting = retargeting
        self.create_subscription(PolygonStamped, topic, self.on_keypoints, 10)

    def on_keypoints(self, message):
        """Retarget the hand of one image."""
        points = np.array([(point.x, point.y, point.z) for point in message.polygon.points])
        optimizer = self.retargeting.optimizer
        indices = optimizer.target_link_human_indices
        if optimizer.retargeting_type == 'POSITION':
            wanted = points[indices]
        else:  # vectors between keypoints
            wanted = points[indices[1]] - points[indices[0]]
        angles = self.retargeting.retarget(wanted)
        names = self.retargeting.joint_names
        print(' '.join(f'{name}={angle:.3f}' for name, angle in zip(names, angles, strict=True)), flush=True)


def main():
    """Run until Ctrl-C."""
    arguments = remove_ros_args(sys.argv)[1:]
    if not 2 <= len(arguments) <= 3:
        sys.exit(__doc__)
    config, folder, topic = (*arguments, '/camera/hand_mesh/retargeting/right')[:3]
    RetargetingConfig.set_default_urdf_dir(folder)
    retargeting = RetargetingConfig.load_from_file(config).build()
    rclpy.init(args=sys.argv)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Retargeter(retargeting, topic))


if __name__ == '__main__':
    main()
