"""Hands, boxes and the hand model as messages and back.

The setters of message fields are slow or unchecked for most types (a wrongly sized array can end
the process when it is sent), so every array is cast, flattened and checked here.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from std_msgs.msg import Header

from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, ScaleSource, Side
from hand_mesh_ros.hand_model.keypoints import JOINT_NAMES, JOINT_PARENTS, KEYPOINT_NAMES, KEYPOINT_PARENTS
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.msg import HandBox as HandBoxMessage
from hand_mesh_ros.msg import HandBoxArray, HandMesh, HandMeshArray, HandModelInfo

SIDE_VALUES: dict[Side, int] = {'left': HandMesh.LEFT, 'right': HandMesh.RIGHT}
SIDE_NAMES: dict[int, Side] = {value: side for side, value in SIDE_VALUES.items()}


def message_from_hands(header: Header, hands: Sequence[Hand], with_vertices: bool = True) -> HandMeshArray:
    """The message of all hands of one image, under that image's header."""
    return HandMeshArray(header=header, hands=[message_from_hand(hand, with_vertices) for hand in hands])


def message_from_hand(hand: Hand, with_vertices: bool = True) -> HandMesh:
    """The message of one hand; it shares no memory with it."""
    message = HandMesh(
        track_id=int(hand.track_id),
        side=SIDE_VALUES[hand.side],
        side_score=float(hand.side_score),
        score=float(hand.score),
        bbox_px=_float32(hand.bbox_px, 4),
        scale_source=int(hand.scale_source),
        global_orient=_float32(hand.global_orient, 3),
        hand_pose=_float32(hand.hand_pose, 45),
        betas=_float32(hand.betas, 10),
        transl=_float32(hand.transl, 3),
        keypoints_3d=_float32(hand.keypoints_3d, 63),
        keypoints_2d=_float32(hand.keypoints_2d, 42),
        joint_confidence=_float32(hand.joint_confidence, 21),
    )
    if with_vertices:
        message.vertices = array('f', _float32(hand.vertices, hand.vertices.size).tobytes())
    return message


def hand_from_message(message: HandMesh, models: Mapping[Side, HandModel]) -> Hand:
    """The hand of a message, posed again with the hand model of the one who sent it.

    The frames at the wrist and the fingertips, which a message does not carry, and the vertices, which
    it may leave out, are computed from the hand's parameters.

    :raises FrameError: a side or a scale source that does not exist.
    """
    side = _side(message.side)
    parameters = {
        name: np.array(getattr(message, name), np.float32)
        for name in ('global_orient', 'hand_pose', 'betas', 'transl')
    }
    posed = models[side].posed(**parameters)
    if message.scale_source not in list(ScaleSource):
        raise FrameError(f'scale_source {message.scale_source} is none of HandMesh.SCALE_*')
    sent = np.array(message.vertices, np.float32).reshape(-1, 3)
    return Hand(
        track_id=message.track_id,
        side=side,
        side_score=message.side_score,
        score=message.score,
        bbox_px=np.array(message.bbox_px, np.float32),
        keypoints_3d=np.array(message.keypoints_3d, np.float32).reshape(21, 3),
        keypoints_2d=np.array(message.keypoints_2d, np.float32).reshape(21, 2),
        joint_confidence=np.array(message.joint_confidence, np.float32),
        vertices=sent if len(sent) else posed.vertices.astype(np.float32),
        T_camera_hand=posed.T_camera_hand,
        T_camera_fingertips=posed.T_camera_fingertips,
        scale_source=ScaleSource(message.scale_source),
        **parameters,
    )


def model_info(
    models: Mapping[Side, HandModel], method: str, backend: str, weights_hash: str = ''
) -> HandModelInfo:
    """What all hands of a node have in common; ``models`` holds both sides."""
    right, left = models['right'], models['left']
    return HandModelInfo(
        method=method,
        backend=backend,
        weights_hash=weights_hash,
        model_name=right.name,
        model_hash=right.sha256,
        model_license=right.license,
        vertex_count=len(right.v_template),
        faces_right=array('I', np.asarray(right.faces, np.uint32).tobytes()),
        faces_left=array('I', np.asarray(left.faces, np.uint32).tobytes()),
        joint_names=list(JOINT_NAMES),
        joint_parents=np.array(JOINT_PARENTS, np.int32),
        keypoint_names=list(KEYPOINT_NAMES),
        keypoint_parents=np.array(KEYPOINT_PARENTS, np.int32),
        hands_mean=_float32(right.hands_mean, 45),
    )


def boxes_from_message(message: HandBoxArray) -> list[HandBox]:
    """The boxes of a message.

    :raises FrameError: a side that does not exist, a box that is empty or not finite, or a score that is
        not finite.
    """
    boxes = []
    for box in message.boxes:
        bbox_px = np.array(box.bbox_px, np.float32)
        x0, y0, x1, y1 = bbox_px
        if not (np.isfinite(bbox_px).all() and x0 < x1 and y0 < y1):
            raise FrameError(f'hand box {bbox_px.tolist()} is not x0, y0, x1, y1 with x0 < x1 and y0 < y1')
        if not math.isfinite(box.score):
            raise FrameError(f'score {box.score} of a hand box is no number')
        boxes.append(HandBox(side=_side(box.side), bbox_px=bbox_px, score=float(box.score)))
    return boxes


def message_from_boxes(header: Header, boxes: Sequence[HandBox]) -> HandBoxArray:
    """The message of the boxes of one image, under that image's header."""
    return HandBoxArray(
        header=header,
        boxes=[
            HandBoxMessage(
                side=SIDE_VALUES[box.side], score=float(box.score), bbox_px=_float32(box.bbox_px, 4)
            )
            for box in boxes
        ],
    )


def _side(value: int) -> Side:
    if value not in SIDE_NAMES:
        raise FrameError(f'side {value} is neither LEFT ({HandMesh.LEFT}) nor RIGHT ({HandMesh.RIGHT})')
    return SIDE_NAMES[value]


def _float32(values: np.ndarray, size: int) -> np.ndarray:
    flat = np.array(values, np.float32).reshape(-1)
    if flat.size != size:
        raise ValueError(f'{flat.size} numbers where the message holds {size}')
    return flat
