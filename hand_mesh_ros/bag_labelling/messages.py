"""Hands and the hand model as serialized messages, made from the package's .msg files alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hand_mesh_ros
from hand_mesh_ros.bag_labelling.decoding import Header
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.hand import Hand
from hand_mesh_ros.hand_model.keypoints import JOINT_NAMES, JOINT_PARENTS, KEYPOINT_NAMES, KEYPOINT_PARENTS

HANDS_TYPE = 'hand_mesh_ros/msg/HandMeshArray'
INFO_TYPE = 'hand_mesh_ros/msg/HandModelInfo'


def message_types() -> Any:
    """A ``rosbags`` typestore of ROS's common messages and of this package's.

    :raises ConfigurationError: ``rosbags`` or the package's .msg files are missing.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise ConfigurationError(f'bags need rosbags: pip install "hand-mesh-ros[ros]" ({error})') from error
    typestore = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(_definitions().glob('*.msg')):
        text = path.read_text(encoding='utf-8')
        typestore.register(get_types_from_msg(text, f'hand_mesh_ros/msg/{path.stem}'))
    return typestore


def _definitions() -> Path:
    """The folder of the .msg files: of the checkout, else where they are installed."""
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    installed = [Path(prefix, 'share/hand_mesh_ros/msg') for prefix in prefixes if prefix]
    for folder in (Path(hand_mesh_ros.__file__).parents[1] / 'msg', *installed):
        if (folder / 'HandMeshArray.msg').is_file():
            return folder
    raise ConfigurationError(
        f'the definitions of the messages are in none of {", ".join(map(str, installed))}: was the package '
        'installed with its interfaces?'
    )


class MessageMaker:
    """Serializes what is written into a bag of hands."""

    def __init__(self, typestore: Any, with_vertices: bool = True) -> None:
        """Take the types of :func:`message_types`."""
        self._store, self._types = typestore, typestore.types
        self._with_vertices = with_vertices

    def hands(self, header: Header, hands: Sequence[Hand]) -> bytes:
        """HandMeshArray of all hands of one picture, under that picture's header."""
        stamp = self._types['builtin_interfaces/msg/Time'](sec=header.sec, nanosec=header.nanosec)
        message = self._types[HANDS_TYPE](
            header=self._types['std_msgs/msg/Header'](stamp=stamp, frame_id=header.frame_id),
            hands=[self._hand(hand) for hand in hands],
        )
        return bytes(self._store.serialize_cdr(message, HANDS_TYPE))

    def info(self, estimator: HandMeshEstimator) -> bytes:
        """HandModelInfo: what all hands of the bag have in common."""
        right, left = estimator.models['right'], estimator.models['left']
        message = self._types[INFO_TYPE](
            method=estimator.method,
            backend=estimator.backend,
            weights_hash=estimator.weights_hash,
            model_name=right.name,
            model_hash=right.sha256,
            model_license=right.license,
            vertex_count=len(right.v_template),
            faces_right=np.asarray(right.faces, np.uint32).reshape(-1),
            faces_left=np.asarray(left.faces, np.uint32).reshape(-1),
            joint_names=list(JOINT_NAMES),
            joint_parents=np.array(JOINT_PARENTS, np.int32),
            keypoint_names=list(KEYPOINT_NAMES),
            keypoint_parents=np.array(KEYPOINT_PARENTS, np.int32),
            hands_mean=_float32(right.hands_mean),
        )
        return bytes(self._store.serialize_cdr(message, INFO_TYPE))

    def _hand(self, hand: Hand) -> Any:
        kind = self._types['hand_mesh_ros/msg/HandMesh']
        return kind(
            track_id=int(hand.track_id),
            side=kind.LEFT if hand.side == 'left' else kind.RIGHT,
            side_score=float(hand.side_score),
            score=float(hand.score),
            bbox_px=_float32(hand.bbox_px),
            scale_source=int(hand.scale_source),
            global_orient=_float32(hand.global_orient),
            hand_pose=_float32(hand.hand_pose),
            betas=_float32(hand.betas),
            transl=_float32(hand.transl),
            keypoints_3d=_float32(hand.keypoints_3d),
            keypoints_2d=_float32(hand.keypoints_2d),
            joint_confidence=_float32(hand.joint_confidence),
            vertices=_float32(hand.vertices if self._with_vertices else np.empty(0)),
        )


def _float32(values: np.ndarray) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1)
