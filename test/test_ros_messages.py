"""Hands keep every number on their way through messages, markers and frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, ScaleSource
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.msg import HandBoxArray, HandMesh, HandMeshArray, HandModelInfo
from hand_mesh_ros.ros import messages, transforms
from hand_mesh_ros.ros.markers import HandMarkers

MODELS = {side: load_hand_model(None, side) for side in ('right', 'left')}
FACES = {side: model.faces for side, model in MODELS.items()}


def make_hand(side: str = 'right', seed: int = 0, track_id: int = -1) -> Hand:
    rng = np.random.default_rng(seed)
    parameters = {
        'global_orient': rng.normal(0, 1, 3).astype(np.float32),
        'hand_pose': rng.normal(0, 0.3, 45).astype(np.float32),
        'betas': rng.normal(0, 1, 10).astype(np.float32),
        'transl': rng.normal((0, 0, 0.6), 0.1).astype(np.float32),
    }
    posed = MODELS[side].posed(**parameters)
    return Hand(
        side=side,
        side_score=0.75,
        score=0.5,
        bbox_px=rng.uniform(0, 640, 4).astype(np.float32),
        keypoints_3d=posed.keypoints.astype(np.float32),
        keypoints_2d=rng.uniform(0, 640, (21, 2)).astype(np.float32),
        joint_confidence=rng.uniform(0, 1, 21).astype(np.float32),
        vertices=posed.vertices.astype(np.float32),
        T_camera_hand=posed.T_camera_hand,
        T_camera_fingertips=posed.T_camera_fingertips,
        scale_source=ScaleSource.HAND_LENGTH,
        track_id=track_id,
        **parameters,
    )


def header() -> Header:
    message = Header(frame_id='camera_optical_frame')
    message.stamp.sec, message.stamp.nanosec = 12, 345
    return message


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('with_vertices', [True, False])
def test_hands_survive_the_way_there_and_back(side, with_vertices):
    hand = make_hand(side, track_id=7)
    message = over_the_wire(messages.message_from_hands(header(), [hand], with_vertices))
    assert message.header == header()
    assert len(message.hands[0].vertices) == (778 * 3 if with_vertices else 0)
    back = messages.hand_from_message(message.hands[0], MODELS)
    for field in dataclasses.fields(Hand):
        sent, received = getattr(hand, field.name), getattr(back, field.name)
        if isinstance(sent, np.ndarray):
            assert received.dtype == sent.dtype, field.name
            np.testing.assert_allclose(received, sent, atol=1e-7, err_msg=field.name)
        else:
            assert received == sent, field.name


def test_messages_read_as_numpy_without_loops():
    hand = make_hand()
    message = over_the_wire(messages.message_from_hand(hand))
    assert np.array_equal(np.asarray(message.vertices).reshape(-1, 3), hand.vertices)
    assert np.array_equal(np.asarray(message.keypoints_3d).reshape(-1, 3), hand.keypoints_3d)


def test_messages_share_no_memory_with_hands():
    hand = make_hand()
    message = messages.message_from_hand(hand)
    before = message.keypoints_3d[0]
    hand.keypoints_3d[:] = 0
    hand.vertices[:] = 0
    assert message.keypoints_3d[0] == before and any(message.vertices)


def test_wrong_sizes_are_caught_before_they_reach_dds():
    with pytest.raises(ValueError, match='44'):
        messages.message_from_hand(dataclasses.replace(make_hand(), hand_pose=np.zeros(44)))


def test_sides_and_scales_that_do_not_exist_are_frame_errors():
    for field in ('side', 'scale_source'):
        message = messages.message_from_hand(make_hand())
        setattr(message, field, 9)
        with pytest.raises(FrameError, match='9'):
            messages.hand_from_message(message, MODELS)


def test_constants_of_messages_are_those_of_the_library():
    for source in ScaleSource:
        assert getattr(HandMesh, f'SCALE_{source.name}') == source
    assert HandMesh().track_id == 0 and HandMesh.NOT_TRACKED == -1


def test_model_info_describes_the_hand_model():
    info = over_the_wire(messages.model_info(MODELS, 'maskhand', 'torch', 'abc'))
    assert isinstance(info, HandModelInfo)
    assert (info.method, info.backend, info.weights_hash) == ('maskhand', 'torch', 'abc')
    assert info.vertex_count == 778 and info.model_hash == MODELS['right'].sha256
    np.testing.assert_array_equal(np.asarray(info.faces_right).reshape(-1, 3), FACES['right'])
    np.testing.assert_array_equal(np.asarray(info.faces_left).reshape(-1, 3), FACES['left'])
    assert info.joint_names[0] == 'wrist' and info.joint_parents[0] == -1
    assert len(info.keypoint_names) == len(info.keypoint_parents) == 21
    np.testing.assert_allclose(info.hands_mean, MODELS['right'].hands_mean, atol=1e-6)


def test_boxes_survive_the_way_there_and_back():
    boxes = [HandBox('left', np.array([1.5, 2, 30, 40], np.float32), 0.25), HandBox('right', np.arange(4.0))]
    back = messages.boxes_from_message(over_the_wire(messages.message_from_boxes(header(), boxes)))
    assert [(box.side, box.bbox_px.tolist(), box.score) for box in back] == [
        ('left', [1.5, 2, 30, 40], 0.25),
        ('right', [0, 1, 2, 3], 1.0),
    ]


@pytest.mark.parametrize('bbox', [[5, 5, 5, 9], [9, 5, 1, 9], [np.nan, 0, 1, 1], [0, 0, np.inf, 1]])
def test_boxes_that_are_none_are_frame_errors(bbox):
    message = messages.message_from_boxes(header(), [HandBox('left', np.array(bbox, np.float32))])
    with pytest.raises(FrameError):
        messages.boxes_from_message(message)
    assert messages.boxes_from_message(HandBoxArray()) == []


def as_matrix(stamped: TransformStamped) -> np.ndarray:
    matrix = np.eye(4)
    rotation, translation = stamped.transform.rotation, stamped.transform.translation
    matrix[:3, :3] = Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    matrix[:3, 3] = translation.x, translation.y, translation.z
    return matrix


@pytest.mark.parametrize('seed', range(5))
def test_frames_chain_up_to_the_fingertips(seed):
    hand = make_hand('left', seed)
    message = over_the_wire(transforms.message_from_hands(header(), [hand]))
    found = {transform.child_frame_id: transform for transform in message.transforms}
    assert found['left_hand'].header == header()
    T_camera_hand = as_matrix(found['left_hand'])
    np.testing.assert_allclose(T_camera_hand, hand.T_camera_hand, atol=1e-12)
    for i, finger in enumerate(('thumb', 'index', 'middle', 'ring', 'pinky')):
        tip = found[f'left_hand_{finger}_tip']
        assert tip.header.frame_id == 'left_hand' and tip.header.stamp == header().stamp
        T_camera_tip = T_camera_hand @ as_matrix(tip)
        np.testing.assert_allclose(T_camera_tip, hand.T_camera_fingertips[i], atol=1e-12)
        np.testing.assert_allclose(T_camera_tip[:3, 3], hand.keypoints_3d[4 + 4 * i], atol=1e-6)


@pytest.mark.parametrize('degrees', [0, 1e-9, 90, 179.9999999, 180])
def test_quaternions_are_right_at_the_ends_of_their_range(degrees):
    hand = make_hand()
    hand.T_camera_hand[:3, :3] = Rotation.from_rotvec([0, degrees, 0], degrees=True).as_matrix()
    stamped = transforms.message_from_hands(header(), [hand]).transforms[0]
    np.testing.assert_allclose(as_matrix(stamped), hand.T_camera_hand, atol=1e-9)


def test_every_hand_has_frames_of_its_own():
    hands = [make_hand('right', 1), make_hand('left', 2), make_hand('right', 3)]
    assert transforms.frame_names(hands, 'front_') == [
        'front_right_hand',
        'front_left_hand',
        'front_right_hand_2',
    ]
    names = [t.child_frame_id for t in transforms.message_from_hands(header(), hands).transforms]
    assert len(names) == len(set(names)) == 18
    followed = [make_hand('right', 1, track_id=7), make_hand('right', 2, track_id=3)]
    assert transforms.frame_names(followed) == ['right_hand_2', 'right_hand']  # whichever scores better now


def test_markers_show_the_mesh_and_go_with_the_hand():
    markers = HandMarkers(FACES)
    right, left = make_hand('right', 1), make_hand('left', 2, track_id=5)
    shown = over_the_wire(markers.message(header(), [right, left])).markers
    assert {marker.action for marker in shown} == {Marker.ADD}
    mesh = next(marker for marker in shown if marker.ns == 'left/mesh')
    assert (mesh.type, mesh.id, mesh.scale.x, mesh.header) == (Marker.TRIANGLE_LIST, 5, 1.0, header())
    assert (mesh.lifetime.sec, mesh.lifetime.nanosec) == (0, 300_000_000)
    corners = np.array([(point.x, point.y, point.z) for point in mesh.points]).reshape(-1, 3, 3)
    np.testing.assert_allclose(corners, left.vertices[FACES['left']], atol=1e-7)

    later = markers.message(header(), [right]).markers
    gone = {(marker.ns, marker.id) for marker in later if marker.action == Marker.DELETE}
    assert gone == {('left/mesh', 5), ('left/keypoints', 5), ('left/bones', 5)}
    assert all(marker.action == Marker.DELETE for marker in markers.message(header(), []).markers)
    assert markers.message(header(), []).markers == []


def test_an_image_without_hands_is_an_empty_message():
    message = messages.message_from_hands(header(), [])
    assert isinstance(message, HandMeshArray) and message.hands == [] and message.header == header()


@pytest.mark.parametrize('score', [np.nan, np.inf])
def test_a_box_with_a_score_that_is_no_number_is_a_frame_error(score):
    message = messages.message_from_boxes(header(), [HandBox('left', np.arange(4.0), score)])
    with pytest.raises(FrameError, match='score'):
        messages.boxes_from_message(message)
