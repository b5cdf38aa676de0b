"""Names and orders of joints and keypoints, in one place."""

from __future__ import annotations

FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')

#: MANO's 16 joints, in MANO order (note pinky before ring).
JOINT_NAMES = (
    'wrist',
    'index1', 'index2', 'index3',
    'middle1', 'middle2', 'middle3',
    'pinky1', 'pinky2', 'pinky3',
    'ring1', 'ring2', 'ring3',
    'thumb1', 'thumb2', 'thumb3',
)  # fmt: skip

#: Parent of each joint, -1 for the wrist.
JOINT_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)

#: The 21 keypoints: wrist, then thumb, index, middle, ring, pinky, from root to tip.
KEYPOINT_NAMES = (
    'wrist',
    'thumb_cmc', 'thumb_mcp', 'thumb_ip', 'thumb_tip',
    'index_mcp', 'index_pip', 'index_dip', 'index_tip',
    'middle_mcp', 'middle_pip', 'middle_dip', 'middle_tip',
    'ring_mcp', 'ring_pip', 'ring_dip', 'ring_tip',
    'pinky_mcp', 'pinky_pip', 'pinky_dip', 'pinky_tip',
)  # fmt: skip

#: Parent of each keypoint, -1 for the wrist: the 20 bones that are drawn.
KEYPOINT_PARENTS = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)

#: The joint that each keypoint moves with; a tip moves with its finger's last joint.
KEYPOINT_JOINTS = (0, 13, 14, 15, 15, 1, 2, 3, 3, 4, 5, 6, 6, 10, 11, 12, 12, 7, 8, 9, 9)

#: Keypoint numbers of the five tips, thumb to pinky.
TIP_KEYPOINTS = (4, 8, 12, 16, 20)
