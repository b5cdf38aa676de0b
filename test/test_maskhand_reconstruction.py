"""What a network sees of a hand in its crop becomes the hand where it is, of either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import view_of_hand
from hand_mesh_ros.cues import Cues
from hand_mesh_ros.datasets.gestures import GesturePoser, gesture_angles
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Hand, ScaleSource, Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.inference.network import NetworkOutput
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction.maskhand import MaskHandReconstructor

SIZE = 128
MODELS: dict[Side, HandModel] = {'right': load_hand_model(), 'left': load_hand_model(side='left')}
PINHOLE = Camera(640, 480, 554.0, 550.0, 322.0, 236.0)
BARREL = replace(PINHOLE, distortion_model='plumb_bob', distortion=(-0.25, 0.06, 0.002, -0.003, 0.0))

#: A right hand, fingers to the upper left, in the camera's frame.
ORIENT, POSE = np.array([1.2, 1.2, 0.5]), np.full(45, 0.15)
BETAS = np.array([0.3, -0.8, 0.5, 0.2, 0.0, -0.4, 0.0, 0.3, 0.0, 0.0])
TRANSL = np.array([0.12, 0.05, 0.45])
CONFIDENCE = np.linspace(0.2, 0.9, 21)


class KnowingNetwork:
    """Says what it was told a right hand is like, in the crop's camera; keeps what it was asked."""

    backend, device, image_size, weights_hash = 'none', 'CPU', SIZE, 'abc'
    finds_hands = True

    def __init__(self, output: NetworkOutput, hand_model_hash: str = MODELS['right'].sha256) -> None:
        self.output, self.hand_model_hash = output, hand_model_hash
        self.asked: list[tuple[np.ndarray, Cues]] = []

    def infer(self, images: np.ndarray, cues: Sequence[Cues]) -> tuple[NetworkOutput, ...]:
        self.asked += zip(images, cues, strict=True)
        # Nothing is known of keypoints without any confidence
        known = [np.where(cue.confidence[:, None] > 0, cue.keypoints, 0.0) for cue in cues]
        return tuple(replace(self.output, keypoints=each.astype(np.float64)) for each in known)


def mean_length_betas() -> np.ndarray:
    """``BETAS``, of a hand as long as the mean one."""
    model = MODELS['right']
    longer = model.betas_for_length(1.01 * model.hand_length(np.zeros(10)))
    longer /= np.linalg.norm(longer)
    return BETAS - (BETAS @ longer) * longer


def right_hand() -> PosedHand:
    return MODELS['right'].posed(ORIENT, POSE, mean_length_betas(), TRANSL)


def seen(R_crop_camera: np.ndarray) -> NetworkOutput:
    """That right hand, in the camera of a crop."""
    return NetworkOutput(
        global_orient=axis_angles(R_crop_camera @ rotation_matrices(ORIENT)),
        hand_pose=POSE,
        betas=BETAS,
        confidence=CONFIDENCE,
        presence=1.0,
        keypoints=np.zeros((21, 2)),
        keypoints_3d=np.zeros((21, 3)),
        vertices=np.zeros((778, 3)),
        tokens=np.zeros(64, np.int64),
    )


def detection(side: Side, keypoints: np.ndarray, camera: Camera) -> Detection:
    """What a perfect detector says of keypoints (21,3)."""
    pixels = camera.project(keypoints).astype(np.float32)
    return Detection(
        side=side,
        side_score=1.0,
        score=0.8,
        bbox_px=np.concatenate([pixels.min(0), pixels.max(0)]),
        keypoints_px=pixels,
        keypoints_depth=None,
        landmarks_world=(keypoints - keypoints.mean(0)).astype(np.float32),
    )


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def reconstructed(
    side: Side, camera: Camera, hand_length_m: float | None = None
) -> tuple[Hand, np.ndarray, KnowingNetwork]:
    """The hand, true vertices (V,3), and the network that was asked, for a hand of that side."""
    truth = right_hand()
    network = KnowingNetwork(seen(view_of_hand(truth.keypoints, SIZE).R_crop_camera))
    keypoints, vertices = truth.keypoints, truth.vertices
    if side == 'left':
        keypoints, vertices = mirrored_points(keypoints), mirrored_points(vertices)
    reconstructor = MaskHandReconstructor(MODELS, network, hand_length_m)
    (hand,) = reconstructor.reconstruct(Observation(camera, picture()), [detection(side, keypoints, camera)])
    assert hand is not None
    return hand, vertices, network


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('camera', [PINHOLE, BARREL], ids=['pinhole', 'barrel'])
def test_the_hand_is_turned_and_put_where_it_is(side, camera):
    hand, vertices, network = reconstructed(side, camera)
    np.testing.assert_allclose(hand.vertices, vertices, atol=2e-5)
    assert (hand.side, hand.scale_source) == (side, ScaleSource.NOMINAL_HAND)
    np.testing.assert_allclose(hand.joint_confidence, CONFIDENCE, atol=1e-6)
    assert hand.score == pytest.approx(CONFIDENCE.mean())
    ((crop, cues),) = network.asked
    assert crop.shape == (SIZE, SIZE, 3) and crop.dtype == np.uint8
    view = view_of_hand(right_hand().keypoints, SIZE)
    # Left or right, the network is shown a right hand, upright.
    np.testing.assert_allclose(cues.keypoints, view.to_unit(right_hand().keypoints), atol=1e-4)
    assert cues.keypoints[9, 0] == pytest.approx(cues.keypoints[0, 0], abs=1e-4)
    assert cues.present.tolist() == [True, False, True]


def test_a_detection_without_confidence_still_says_where_the_hand_is():
    truth = right_hand()
    network = KnowingNetwork(seen(view_of_hand(truth.keypoints, SIZE).R_crop_camera))
    doubtful = replace(detection('right', truth.keypoints, PINHOLE), score=0.0)
    (hand,) = MaskHandReconstructor(MODELS, network).reconstruct(Observation(PINHOLE, picture()), [doubtful])
    assert hand is not None
    np.testing.assert_allclose(hand.vertices, truth.vertices, atol=2e-5)


def test_a_left_hand_is_the_mirror_image_of_a_right_one():
    """Of the mirrored picture, taken by the mirrored camera."""
    image, keypoints = picture(), right_hand().keypoints
    mirrored_camera = replace(PINHOLE, cx=639 - PINHOLE.cx)
    network = KnowingNetwork(seen(view_of_hand(keypoints, SIZE).R_crop_camera))
    reconstructor = MaskHandReconstructor(MODELS, network)
    (right,) = reconstructor.reconstruct(
        Observation(PINHOLE, image), [detection('right', keypoints, PINHOLE)]
    )
    (left,) = reconstructor.reconstruct(
        Observation(mirrored_camera, np.ascontiguousarray(image[:, ::-1])),
        [detection('left', mirrored_points(keypoints), mirrored_camera)],
    )
    assert right is not None and left is not None
    (crop, cues), (other_crop, other_cues) = network.asked
    difference = np.abs(crop.astype(int) - other_crop)
    assert np.median(difference) == 0.0 and difference.mean() < 0.5
    for name in ('keypoints', 'confidence', 'relative_depth', 'world', 'present'):
        np.testing.assert_allclose(getattr(cues, name), getattr(other_cues, name), atol=1e-4, err_msg=name)
    np.testing.assert_allclose(mirrored_points(left.vertices), right.vertices, atol=1e-5)
    np.testing.assert_allclose(mirrored_axis_angles(left.hand_pose), right.hand_pose, atol=1e-6)
    np.testing.assert_allclose(mirrored_axis_angles(left.global_orient), right.global_orient, atol=1e-4)
    np.testing.assert_allclose(left.betas, right.betas)


def test_the_hand_is_as_long_as_the_user_says_and_has_the_networks_proportions():
    mean_m = MODELS['right'].hand_length(np.zeros(10))
    for given, length_m in ((None, mean_m), (0.9 * mean_m, 0.9 * mean_m), (1.1 * mean_m, 1.1 * mean_m)):
        for side in ('right', 'left'):
            hand, _, _ = reconstructed(side, PINHOLE, given)
            assert MODELS[side].hand_length(hand.betas) == pytest.approx(length_m, rel=2e-3)
            start = np.zeros(10) if given is None else MODELS['right'].betas_for_length(given)
            np.testing.assert_allclose(hand.betas - start, mean_length_betas(), atol=1e-6)
            # A longer hand of the same pixels is further away, in the same measure.
            assert np.linalg.norm(hand.keypoints_3d.mean(0)) == pytest.approx(
                np.linalg.norm(right_hand().keypoints.mean(0)) * length_m / mean_m, rel=0.02
            )
            expected = ScaleSource.NOMINAL_HAND if given is None else ScaleSource.HAND_LENGTH
            assert hand.scale_source == expected


def test_betas_of_another_model_are_not_taken_over():
    truth = right_hand()
    output = seen(view_of_hand(truth.keypoints, SIZE).R_crop_camera)
    network = KnowingNetwork(output, hand_model_hash='of another model')
    (hand,) = MaskHandReconstructor(MODELS, network).reconstruct(
        Observation(PINHOLE, picture()), [detection('right', truth.keypoints, PINHOLE)]
    )
    assert hand is not None and not hand.betas.any()


def test_the_time_of_the_stages_is_told():
    truth = right_hand()
    network = KnowingNetwork(seen(view_of_hand(truth.keypoints, SIZE).R_crop_camera))
    reconstructor = MaskHandReconstructor(MODELS, network)
    assert reconstructor.timing_ms == {'crop': 0.0, 'network': 0.0, 'place': 0.0}
    reconstructor.reconstruct(Observation(PINHOLE, picture()), [detection('right', truth.keypoints, PINHOLE)])
    assert all(0.0 < ms < 1000.0 for ms in reconstructor.timing_ms.values())


def test_all_hands_of_a_frame_are_seen_at_once_and_a_bad_one_harms_no_other():
    truth = right_hand()
    network = KnowingNetwork(seen(view_of_hand(truth.keypoints, SIZE).R_crop_camera))
    batches: list[int] = []
    infer = network.infer
    network.infer = lambda images, cues: batches.append(len(images)) or infer(images, cues)  # type: ignore
    right = detection('right', truth.keypoints, PINHOLE)
    left = detection('left', mirrored_points(truth.keypoints), PINHOLE)
    bad = replace(right, keypoints_px=np.full((21, 2), np.nan, np.float32))
    observation = Observation(PINHOLE, picture())
    reconstructor = MaskHandReconstructor(MODELS, network)
    hands = reconstructor.reconstruct(observation, [right, bad, left])
    assert batches == [2] and hands[1] is None
    for hand, alone in zip((hands[0], hands[2]), (right, left), strict=True):
        (expected,) = reconstructor.reconstruct(observation, [alone])
        assert hand is not None and expected is not None
        np.testing.assert_array_equal(hand.vertices, expected.vertices)


def test_nothing_is_said_of_what_no_hand_can_be():
    truth = right_hand()
    network = KnowingNetwork(seen(view_of_hand(truth.keypoints, SIZE).R_crop_camera))
    reconstructor = MaskHandReconstructor(MODELS, network)
    good = detection('right', truth.keypoints, PINHOLE)
    assert good.keypoints_px is not None
    not_finite = good.keypoints_px.copy()
    not_finite[3] = np.nan
    one_place = np.full((21, 2), 100.0, np.float32)
    for keypoints_px in (not_finite, one_place):
        hands = reconstructor.reconstruct(
            Observation(PINHOLE, picture()), [replace(good, keypoints_px=keypoints_px)]
        )
        assert hands == [None] and not network.asked


def test_a_box_without_landmarks_gives_no_hand():
    network = KnowingNetwork(seen(np.eye(3)))
    box = Detection('right', 0.0, 0.0, np.array([100, 100, 200, 200], np.float32), None, None, None)
    hands = MaskHandReconstructor(MODELS, network).reconstruct(Observation(PINHOLE, picture()), [box])
    assert hands == [None]
    assert not network.asked


class SeeingNetwork(KnowingNetwork):
    """Sees where the hand is in its crop, without cues."""

    def infer(self, images: np.ndarray, cues: Sequence[Cues]) -> tuple[NetworkOutput, ...]:
        self.asked += zip(images, cues, strict=True)
        return (self.output,) * len(images)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_followed_hand_is_looked_for_where_it_was(side):
    truth, was = right_hand().keypoints, right_hand().keypoints + (0.02, -0.01, 0.0)
    view = view_of_hand(was, SIZE)
    output = replace(seen(view.R_crop_camera), keypoints=view.to_unit(truth))
    network = SeeingNetwork(output)
    if side == 'left':
        truth, was = mirrored_points(truth), mirrored_points(was)
    where = PINHOLE.project(was).astype(np.float32)
    followed = replace(detection(side, was, PINHOLE), keypoints_px=None, landmarks_world=None, side_score=0.8)
    followed = replace(followed, followed_px=where)
    reconstructor, observation = MaskHandReconstructor(MODELS, network), Observation(PINHOLE, picture())
    (hand,) = reconstructor.reconstruct(observation, [followed])
    assert hand is not None and (hand.side, hand.side_score) == (side, 0.8)
    np.testing.assert_allclose(hand.keypoints_3d, truth, atol=1e-3)
    pixels = np.clip(PINHOLE.project(truth), 0, (639, 479))  # a box ends where the image does
    assert (hand.bbox_px[:2] <= pixels.min(0)).all() and (hand.bbox_px[2:] >= pixels.max(0)).all()
    assert not network.asked[0][1].present.any()
    for nothing in (
        replace(output, presence=0.4),
        replace(output, presence=float('nan')),
        replace(output, keypoints=np.full((21, 2), np.nan)),
    ):
        network.output = nothing
        assert reconstructor.reconstruct(observation, [followed]) == [None]


def test_a_followed_fist_does_not_fill_its_crop():
    model = MODELS['right']
    folded = GesturePoser(model).hand_pose(gesture_angles('fist'))
    fist = model.posed(ORIENT, folded, np.zeros(10), TRANSL).keypoints
    open_hand = right_hand().keypoints
    zooms = []
    for keypoints in (fist, open_hand):
        network = SeeingNetwork(replace(seen(np.eye(3)), presence=0.0))
        given = detection('right', keypoints, PINHOLE)
        pixels = given.keypoints_px
        blank = np.zeros((480, 640, 3), np.uint8)
        cv2.circle(blank, tuple(int(v) for v in pixels.mean(0)), 20, (255, 255, 255), -1)
        reconstructor, observation = MaskHandReconstructor(MODELS, network), Observation(PINHOLE, blank)
        followed = replace(given, keypoints_px=None, followed_px=pixels)
        reconstructor.reconstruct(observation, [given, followed])
        (by_detector, _), (by_itself, _) = network.asked
        zooms.append(np.sqrt((by_itself > 127).sum() / (by_detector > 127).sum()))
    assert zooms[0] < 0.95 and zooms[1] == pytest.approx(1.0, abs=1e-3)


def test_a_length_that_no_hand_has_is_refused_at_the_start():
    network = KnowingNetwork(seen(np.eye(3)))
    with pytest.raises(ConfigurationError, match='0.5'):
        MaskHandReconstructor(MODELS, network, 0.5)
