"""Of the hands that a network tells of a mask one becomes the hand where it is, of either side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from maskhand_file import UPRIGHT

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.detection.masks import hands_in_mask
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.hand import Hand, ScaleSource, Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.inference.network import SilhouetteHand
from hand_mesh_ros.mask_view import view_of_mask
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction.mask2hand import Mask2HandReconstructor, worth
from hand_mesh_ros.rendering.zbuffer import rasterise

SIZE = 96
MODELS: dict[Side, HandModel] = {'right': load_hand_model(), 'left': load_hand_model(side='left')}
PINHOLE = Camera(640, 480, 554.0, 550.0, 322.0, 236.0)
BARREL = replace(PINHOLE, distortion_model='plumb_bob', distortion=(-0.25, 0.06, 0.002, -0.003, 0.0))

#: A right hand, in the camera's frame, palm to the camera.
ORIENT, POSE = np.array([1.2, 1.2, 0.9]), np.full(45, 0.1)
BETAS = np.array([0.3, -0.8, 0.5, 0.2, 0.0, -0.4, 0.0, 0.3, 0.0, 0.0])
TRANSL = np.array([-0.05, 0.05, 0.45])
CONFIDENCE = np.linspace(0.2, 0.9, 21)


class KnowingNetwork:
    """Says what it was told that right hands are like, in the crop's camera; keeps what it was asked."""

    backend, device, image_size, weights_hash = 'none', 'CPU', SIZE, 'abc'

    def __init__(self, *hands: SilhouetteHand, hand_model_hash: str = MODELS['right'].sha256) -> None:
        self.hands, self.hand_model_hash = hands, hand_model_hash
        self.asked: list[tuple[np.ndarray, float]] = []

    def infer(self, crops: np.ndarray, half_sides: np.ndarray) -> tuple[tuple[SilhouetteHand, ...], ...]:
        self.asked += zip(crops, half_sides, strict=True)
        return (self.hands,) * len(crops)


def posed(betas: np.ndarray, scale: float = 1.0) -> PosedHand:
    return MODELS['right'].posed(ORIENT, POSE, betas, TRANSL * scale)


def mean_length_betas() -> np.ndarray:
    """``BETAS``, of a hand as long as the mean one."""
    model = MODELS['right']
    longer = model.betas_for_length(1.01 * model.hand_length(np.zeros(10)))
    longer /= np.linalg.norm(longer)
    return BETAS - (BETAS @ longer) * longer


def mask_of(hand: PosedHand, camera: Camera, side: Side = 'right') -> np.ndarray:
    vertices = hand.vertices if side == 'right' else mirrored_points(hand.vertices)
    return rasterise(vertices, MODELS[side].faces, camera).mask


def told(R_crop_camera: np.ndarray, hand: PosedHand, score: float = 0.9) -> SilhouetteHand:
    """That hand, in the camera of a crop."""
    return SilhouetteHand(
        global_orient=axis_angles(R_crop_camera @ rotation_matrices(ORIENT)),
        hand_pose=POSE,
        betas=BETAS,
        wrist=R_crop_camera @ hand.keypoints[0],
        confidence=CONFIDENCE,
        score=score,
    )


def tilted(hand: SilhouetteHand, angle: float, score: float) -> SilhouetteHand:
    """Another hand with the same wrist, its fingers nearer to the camera."""
    turn = rotation_matrices(np.array([angle, 0.0, 0.0]))
    return replace(hand, global_orient=axis_angles(turn @ rotation_matrices(hand.global_orient)), score=score)


def reconstructed(
    reconstructor: Mask2HandReconstructor, mask: np.ndarray, camera: Camera = PINHOLE, side: Side = 'right'
) -> Hand:
    (detection,) = hands_in_mask(mask, side=side)
    (hand,) = reconstructor.reconstruct(Observation(camera, mask=mask), [detection])
    assert hand is not None
    return hand


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('camera', [PINHOLE, BARREL], ids=['pinhole', 'barrel'])
def test_the_hand_is_turned_and_put_where_it_is(side, camera):
    truth = posed(mean_length_betas())
    mask = mask_of(truth, camera, side)
    # What the network is shown is a right hand's mask, which a mirrored camera would have seen
    R = view_of_mask(mask, camera, SIZE).R_crop_camera
    if side == 'left':
        mirror = np.diag([-1.0, 1.0, 1.0])
        R = mirror @ R @ mirror
    network = KnowingNetwork(told(R, truth))
    hand = reconstructed(Mask2HandReconstructor(MODELS, network), mask, camera, side)
    vertices = truth.vertices if side == 'right' else mirrored_points(truth.vertices)
    # The network had a hand of another length in mind
    np.testing.assert_allclose(hand.vertices, vertices, atol=0.03)
    np.testing.assert_allclose(hand.keypoints_2d, camera.project(hand.keypoints_3d), atol=0.01)
    assert (hand.side, hand.scale_source) == (side, ScaleSource.NOMINAL_HAND)
    assert hand.score == pytest.approx(CONFIDENCE.mean())
    np.testing.assert_allclose(hand.joint_confidence, CONFIDENCE, atol=1e-6)
    pose = POSE if side == 'right' else mirrored_axis_angles(POSE)
    np.testing.assert_allclose(hand.hand_pose, pose, atol=1e-6)
    ((crop, half_side),) = network.asked
    assert crop.shape == (SIZE, SIZE) and crop.dtype == np.uint8 and half_side > 1.0
    assert 0.05 < (crop > 127).mean() < 0.6


def test_a_left_hand_is_the_mirror_image_of_a_right_one():
    truth = posed(mean_length_betas())
    mirrored_camera = replace(PINHOLE, cx=639 - PINHOLE.cx)
    right_mask = mask_of(truth, PINHOLE)
    left_mask = np.ascontiguousarray(right_mask[:, ::-1])
    network = KnowingNetwork(told(view_of_mask(right_mask, PINHOLE, SIZE).R_crop_camera, truth))
    reconstructor = Mask2HandReconstructor(MODELS, network)
    right = reconstructed(reconstructor, right_mask)
    left = reconstructed(reconstructor, left_mask, mirrored_camera, 'left')
    (crop, half_side), (other_crop, other_half_side) = network.asked
    # To the last pixel that tells where a mask lies, of which not all are taken
    assert np.abs(crop.astype(int) - other_crop).mean() < 2.0
    assert half_side == pytest.approx(other_half_side, rel=0.01)
    np.testing.assert_allclose(mirrored_points(left.vertices), right.vertices, atol=0.003)


@pytest.mark.parametrize('share', [0.9, 1.0, 1.1])
def test_a_hand_of_another_length_looks_the_same_from_another_distance(share):
    truth = posed(BETAS)
    mask = mask_of(truth, PINHOLE)
    network = KnowingNetwork(told(view_of_mask(mask, PINHOLE, SIZE).R_crop_camera, truth))
    mean_m = MODELS['right'].hand_length(np.zeros(10))
    hand = reconstructed(Mask2HandReconstructor(MODELS, network, share * mean_m), mask)
    assert MODELS['right'].hand_length(hand.betas) == pytest.approx(share * mean_m, rel=2e-3)
    assert hand.scale_source == ScaleSource.HAND_LENGTH
    ratio = MODELS['right'].hand_length(hand.betas) / MODELS['right'].hand_length(BETAS)
    np.testing.assert_allclose(hand.keypoints_3d[0], truth.keypoints[0] * ratio, atol=1e-4)
    off_px = np.linalg.norm(hand.keypoints_2d - PINHOLE.project(truth.keypoints), axis=1)
    assert off_px.mean() < 6.0 and off_px[0] < 0.1


def test_betas_of_another_model_are_not_taken_over():
    truth = posed(np.zeros(10))
    mask = mask_of(truth, PINHOLE)
    hand = told(view_of_mask(mask, PINHOLE, SIZE).R_crop_camera, truth)
    network = KnowingNetwork(hand, hand_model_hash='of another model')
    found = reconstructed(Mask2HandReconstructor(MODELS, network), mask)
    assert not found.betas.any()
    np.testing.assert_allclose(found.vertices, truth.vertices, atol=2e-4)


def test_a_hand_that_fills_the_mask_is_preferred():
    truth = posed(mean_length_betas())
    mask = mask_of(truth, PINHOLE)
    right = told(view_of_mask(mask, PINHOLE, SIZE).R_crop_camera, truth, score=0.3)
    found = reconstructed(
        Mask2HandReconstructor(MODELS, KnowingNetwork(tilted(right, 1.2, 0.7), right)), mask
    )
    np.testing.assert_allclose(found.vertices, truth.vertices, atol=0.03)


def test_in_a_stream_the_choice_does_not_flip():
    truth = posed(mean_length_betas())
    mask = mask_of(truth, PINHOLE)
    one = told(view_of_mask(mask, PINHOLE, SIZE).R_crop_camera, truth, score=0.6)
    other = tilted(one, -0.4, 0.4)
    network = KnowingNetwork(one, other)
    for streaming in (True, False):
        reconstructor = Mask2HandReconstructor(MODELS, network, streaming=streaming)
        network.hands = one, other
        first = reconstructed(reconstructor, mask)
        # Now the network finds the other one more likely
        network.hands = replace(other, score=0.92), replace(one, score=0.08)
        second = reconstructed(reconstructor, mask)
        assert np.allclose(first.vertices, second.vertices) == streaming
        # Of a hand elsewhere in the picture nothing was known before
        far = np.roll(mask, -180, axis=1)
        elsewhere = reconstructed(reconstructor, far)
        alone = reconstructed(Mask2HandReconstructor(MODELS, network), far)
        np.testing.assert_array_equal(elsewhere.vertices, alone.vertices)


def test_worth_grows_with_probability_and_overlap_and_falls_with_change():
    assert np.argmax(worth(np.array([0.4, 0.6]), np.array([0.8, 0.8]))) == 1
    assert np.argmax(worth(np.array([0.4, 0.6]), np.array([0.9, 0.7]))) == 0
    assert np.argmax(worth(np.array([0.5, 0.5]), np.array([0.8, 0.8]), np.array([0.0, 0.4]))) == 0
    assert np.isfinite(worth(np.array([0.0, 1.0]), np.array([0.0, 1.0]))).all()


def test_a_mask_that_no_hand_looks_like_gives_none():
    truth = posed(mean_length_betas())
    mask = mask_of(truth, PINHOLE)
    right = told(view_of_mask(mask, PINHOLE, SIZE).R_crop_camera, truth)
    beside = replace(right, wrist=right.wrist + [0.3, 0.0, 0.0])
    (detection,) = hands_in_mask(mask)
    reconstructor = Mask2HandReconstructor(MODELS, KnowingNetwork(beside))
    observation = Observation(PINHOLE, mask=mask)
    assert reconstructor.reconstruct(observation, [detection, replace(detection, mask=None)]) == [None, None]


def test_refining_brings_the_hand_onto_its_mask():
    truth = posed(mean_length_betas())
    mask = mask_of(truth, PINHOLE)
    right = told(view_of_mask(mask, PINHOLE, SIZE).R_crop_camera, truth)
    network = KnowingNetwork(replace(tilted(right, 0.25, 0.9), wrist=right.wrist + [0.01, 0.0, 0.0]))
    shared = []
    for refine in (False, True):
        reconstructor = Mask2HandReconstructor(MODELS, network, refine=refine)
        hand = reconstructed(reconstructor, mask)
        seen = rasterise(hand.vertices, MODELS['right'].faces, PINHOLE).mask
        shared.append((seen & mask).sum() / (seen | mask).sum())
        assert ('outline' in reconstructor.timing_ms) == refine
    assert shared[1] > shared[0] + 0.02


def test_a_length_that_no_hand_has_is_refused_at_the_start():
    with pytest.raises(ConfigurationError, match='0.5'):
        Mask2HandReconstructor(MODELS, KnowingNetwork(), 0.5)


@pytest.fixture(scope='module')
def estimator(mask2hand_weights):
    """Of the small network, which sees a flat, upright hand everywhere."""
    with HandMeshEstimator('mask2hand', weights=mask2hand_weights, side='left') as estimator:
        yield estimator


@pytest.fixture(scope='module')
def upright() -> np.ndarray:
    """The mask of such a hand, in a picture of 320 by 240, and its depth image."""
    model = MODELS['left']
    flat = model.posed(mirrored_axis_angles(UPRIGHT), np.zeros(45), np.zeros(10), np.zeros(3))
    vertices = flat.vertices - flat.keypoints.mean(0) + [0.02, 0.0, 0.6]
    return rasterise(vertices, model.faces, CAMERA).depth


CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)


def test_masks_in_hands_out(estimator, upright):
    mask = upright > 0
    assert (estimator.method, estimator.backend, len(estimator.weights_hash)) == ('mask2hand', 'torch', 64)
    estimate = estimator.estimate(None, CAMERA, mask=mask)
    (hand,) = estimate.hands
    assert (hand.side, hand.scale_source) == ('left', ScaleSource.NOMINAL_HAND)
    seen = rasterise(hand.vertices, estimator.faces['left'], CAMERA).mask
    assert (seen & mask).sum() / (seen | mask).sum() > 0.4
    times = estimate.timing_ms
    assert 0.0 < times['network'] <= times['reconstruct'] <= times['total'] and 'surface' not in times
    # Numbers are as good as truth values, and an image beside the mask changes nothing
    image = np.full((240, 320, 3), 128, np.uint8)
    (same,) = estimator.estimate(image, CAMERA, mask=mask.astype(np.uint8) * 255).hands
    np.testing.assert_array_equal(same.vertices, hand.vertices)
    # Without a camera one is guessed, and told
    (guessed,) = estimator.estimate(None, mask=mask).hands
    assert guessed.scale_source == ScaleSource.UNKNOWN
    (boxed,) = estimator.estimate(None, CAMERA, [HandBox('right', hand.bbox_px)], mask=mask).hands
    assert boxed.side == 'right'


def test_measured_depth_makes_hands_metric(estimator, upright):
    estimate = estimator.estimate(None, CAMERA, mask=upright > 0, depth_m=upright)
    (hand,) = estimate.hands
    assert hand.scale_source == ScaleSource.DEPTH and 'surface' in estimate.timing_ms
    seen = rasterise(hand.vertices, estimator.faces['left'], CAMERA)
    both = seen.mask & (upright > 0)
    assert abs(np.median(seen.depth[both] - upright[both])) < 0.01
    # Depth that says nothing of the hand leaves it as it was
    nothing = estimator.estimate(None, CAMERA, mask=upright > 0, depth_m=np.zeros_like(upright))
    assert [hand.scale_source for hand in nothing.hands] == [ScaleSource.NOMINAL_HAND]


def with_forearm(depth_m: np.ndarray) -> np.ndarray:
    """The hand at the end of an arm that comes in from below, before a wall."""
    wrist = np.flatnonzero((depth_m > 0).any(axis=1))[-1]
    columns = np.flatnonzero(depth_m[wrist - 2] > 0)
    arm = np.where(depth_m > 0, depth_m, np.float32(1.5))
    arm[wrist - 2 :, columns[0] : columns[-1] + 1] = np.median(depth_m[wrist - 2, columns])
    return arm


def test_without_a_mask_hands_are_looked_for_in_the_depth(estimator, upright):
    depth_m = with_forearm(upright)
    estimate = estimator.estimate(None, CAMERA, depth_m=depth_m)
    (hand,) = estimate.hands
    assert hand.scale_source == ScaleSource.DEPTH and 'segment' in estimate.timing_ms
    assert estimator.estimate(None, CAMERA, depth_m=np.zeros_like(upright)).hands == ()


def test_masks_without_hands_give_none(estimator):
    rng = np.random.default_rng(0)
    thin = np.zeros((240, 320), bool)
    thin[20:200, 100] = True
    for mask in (np.zeros((240, 320), bool), np.ones((240, 320), bool), rng.random((240, 320)) < 0.1, thin):
        estimate = estimator.estimate(None, CAMERA, mask=mask)
        assert estimate.hands == () and estimate.timing_ms['network'] == 0.0
    box = HandBox('right', np.array([10, 10, 90, 90], np.float32))
    (unresolved,) = estimator.estimate(None, CAMERA, [box], mask=thin).unresolved
    np.testing.assert_array_equal(unresolved.bbox_px, box.bbox_px)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'mask2hand needs a mask or a depth image'),
        ({'mask': np.ones((100, 100), bool)}, '100x100'),
        ({'mask': np.ones((240, 320), np.float32)}, 'float32'),
        ({'mask': np.ones((240, 320, 3), np.uint8)}, 'shape'),
        ({'depth_m': np.ones((240, 320), np.uint16)}, 'uint16'),
        ({'mask': np.ones((240, 320), bool), 'depth_m': np.ones((24, 32), np.float32)}, '32x24'),
        ({'camera': None, 'depth_m': np.ones((240, 320), np.float32)}, 'intrinsics'),
        ({'camera': Camera.from_fov(320, 240), 'depth_m': np.ones((240, 320), np.float32)}, 'intrinsics'),
        ({'camera': None, 'mask': np.ones(5, bool)}, 'mask'),
        ({'camera': None, 'mask': np.ones((0, 5), bool)}, 'mask'),
    ],
)
def test_input_that_is_none_is_a_bad_frame(estimator, options, message):
    with pytest.raises(FrameError, match=message):
        estimator.estimate(None, **{'camera': CAMERA, **options})


def test_what_the_estimator_cannot_do_is_told(upright):
    with HandMeshEstimator('fit') as estimator, pytest.raises(FrameError, match='fit needs an image'):
        estimator.estimate(None, CAMERA, mask=upright > 0, depth_m=upright)
    with pytest.raises(ConfigurationError, match='side'):
        HandMeshEstimator('fit', side='both')
