"""Hands keep their ids over time, and the detector rests while they are followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hand_mesh_ros import Camera, HandMeshEstimator
from hand_mesh_ros.datasets.demo_clip import demo_performers
from hand_mesh_ros.datasets.film import Film
from hand_mesh_ros.detection.detection import Detection, HandBox, box_around
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.estimator import Estimate
from hand_mesh_ros.hand import UNTRACKED, Hand, ScaleSource, Side
from hand_mesh_ros.tracking.tracker import DETECT_EVERY, HandTracker

WIDTH, HEIGHT = 640, 480
CAMERA = Camera.from_fov(WIDTH, HEIGHT)

#: Keypoints of an upright hand of 100 pixels around its middle: wrist below, five fingers above.
SHAPE = np.array(
    [[0, 50]]
    + [[(f - 2) * 15 * (0.5 + 0.2 * j), 15 - 16 * j - 4 * (f > 0)] for f in range(5) for j in range(4)],
    float,
)


@dataclass(frozen=True)
class Real:
    """A hand that is there, in one frame."""

    x: float
    side: Side = 'right'
    y: float = 240.0
    size: float = 1.0

    @property
    def keypoints_px(self) -> np.ndarray:
        return SHAPE * self.size + (self.x, self.y)

    def detection(self, side: Side | None = None, side_score: float = 0.95) -> Detection:
        points = self.keypoints_px.astype(np.float32)
        return Detection(side or self.side, side_score, 0.9, box_around(points), points, None, None)


def hand_at(points: np.ndarray, side: Side, side_score: float, score: float = 0.8) -> Hand:
    zeros = np.zeros(3, np.float32)
    return Hand(
        side=side,
        side_score=side_score,
        score=score,
        bbox_px=box_around(points),
        global_orient=zeros,
        hand_pose=np.zeros(45, np.float32),
        betas=np.zeros(10, np.float32),
        transl=zeros,
        keypoints_3d=np.zeros((21, 3), np.float32),
        keypoints_2d=points.astype(np.float32),
        joint_confidence=np.full(21, score, np.float32),
        vertices=np.zeros((4, 3), np.float32),
        T_camera_hand=np.eye(4),
        T_camera_fingertips=np.tile(np.eye(4), (5, 1, 1)),
        scale_source=ScaleSource.NOMINAL_HAND,
    )


class World:
    """A tracker, a network that sees the nearest hand of its crop, and a detector that sees all hands."""

    def __init__(self, max_hands: int = 2, detect_every: int = DETECT_EVERY) -> None:
        self.tracker = HandTracker(max_hands, detect_every)
        self.detected: list[bool] = []

    def frame(
        self, there: Sequence[Real], seen: Sequence[Detection] | None = None, hidden: Sequence[Real] = ()
    ) -> dict[int, Hand]:
        """The hands by id, in a frame that shows ``there``; ``seen`` is what the detector says.

        ``hidden`` are there too, and nobody sees them.
        """
        self.tracker.begin_frame(WIDTH, HEIGHT)
        where = self.tracker.followed()
        self.tracker.saw_followed(where, [self._look(d.followed_px, d, there) for d in where])
        self.detected.append(self.tracker.detector_due)
        if self.detected[-1]:
            known = self.tracker.known_px()
            found = [real.detection() for real in there] if seen is None else seen
            found = [d for d in found if not any(_near(d.keypoints_px, points, 0.3) for points in known)]
            wanted = self.tracker.assigned(found)
            self.tracker.saw_assigned(
                wanted, [self._look(w.detection.keypoints_px, w.detection, there) for w in wanted]
            )
        hands = [hand for _, hand in self.tracker.hands()]
        assert len({hand.track_id for hand in hands}) == len(hands)
        return {hand.track_id: hand for hand in hands}

    def _look(self, about: np.ndarray | None, detection: Detection, there: Sequence[Real]) -> Hand | None:
        assert about is not None
        near = [real for real in there if _near(about, real.keypoints_px, 0.6)]
        if not near:
            return None
        best = min(near, key=lambda real: abs(real.x - about[:, 0].mean()))
        return hand_at(best.keypoints_px, detection.side, detection.side_score)


def _near(a: np.ndarray | None, b: np.ndarray, share: float) -> bool:
    assert a is not None
    return bool(np.linalg.norm(a - b, axis=1).mean() < share * np.ptp(b, axis=0).max())


def ids_at(hands: dict[int, Hand], real: Real) -> list[int]:
    """Ids of the hands that are where ``real`` is."""
    return [id for id, hand in hands.items() if _near(hand.keypoints_2d, real.keypoints_px, 0.01)]


def test_a_hand_that_moves_keeps_its_id_and_the_detector_rests():
    world = World(max_hands=1)
    for step in range(100):
        real = Real(100 + 4 * step)
        assert ids_at(world.frame([real]), real) == [1]
    assert sum(world.detected) <= 5  # the first, two more until the side is sure, and every 30th or so


def test_while_there_may_be_more_hands_they_are_looked_for_now_and_then():
    world = World(max_hands=2, detect_every=8)
    for _ in range(81):
        world.frame([Real(200)])
    assert 0.1 < np.mean(world.detected) < 0.15
    appeared = [len(world.frame([Real(200), Real(400, 'left')])) for _ in range(8)]
    assert appeared[-1] == 2
    world.detected.clear()
    for _ in range(60):
        assert set(world.frame([Real(200), Real(400, 'left')])) == {1, 2}
    assert sum(world.detected) <= 5


def test_a_fast_hand_is_met_where_it_goes():
    """It moves by more than the network sees, but steadily."""
    world, x = World(max_hands=1), 50.0
    for step in range(20):
        x += min(4 * step, 55)
        real = Real(x)
        if x < WIDTH - 50:
            assert ids_at(world.frame([real]), real) == [1]
    assert sum(world.detected) <= 3


@pytest.mark.parametrize('sides', [('right', 'left'), ('right', 'right')])
def test_hands_that_cross_keep_their_ids(sides: tuple[Side, Side]):
    """The farther one is hidden while they are at one place."""
    world = World()
    for step in range(61):
        near, far = Real(170 + 5 * step, sides[0]), Real(470 - 5 * step, sides[1], y=250)
        covered = abs(near.x - far.x) < 60
        hands = world.frame([near] if covered else [near, far])
        if step == 0:
            first = ids_at(hands, near)[0], ids_at(hands, far)[0]
        assert ids_at(hands, near) == [first[0]]
        assert set(hands) <= set(first)
    assert ids_at(hands, far) == [first[1]]


def test_two_hands_of_one_side_are_two():
    world = World()
    for step in range(40):
        hands = world.frame([Real(200 + step), Real(420 - step)])
        assert set(hands) == {1, 2} and {hand.side for hand in hands.values()} == {'right'}


def test_a_hand_that_leaves_and_one_that_enters_are_two():
    world = World(max_hands=1)
    for x in range(500, 700, 10):
        hands = world.frame([Real(x)] if x < WIDTH else [])
    assert hands == {}
    for _ in range(30):
        hands = world.frame([])
        assert hands == {}
    for step in range(20):
        hands = world.frame([Real(100 + step, 'left')])
    assert [(id > 1, hand.side) for id, hand in hands.items()] == [(True, 'left')]


def test_a_hand_that_nobody_saw_for_some_frames_is_the_same():
    world = World()
    for _ in range(10):
        world.frame([Real(300)])
    for _ in range(5):
        assert world.frame([]) == {}
    assert set(world.frame([Real(330)])) == {1}
    for _ in range(60):
        world.frame([])
    assert 1 not in world.frame([Real(330)])


def test_votes_decide_the_side():
    world = World(max_hands=1, detect_every=1)
    wrong_once = {4: 'left', 9: 'left', 20: 'left'}
    for step in range(40):
        real = Real(300)
        hands = world.frame([real], [real.detection(wrong_once.get(step, 'right'))])
        assert [(id, hand.side) for id, hand in hands.items()] == [(1, 'right')]


def test_a_hand_that_was_taken_for_the_other_one_changes_its_side_and_not_its_id():
    world = World(max_hands=1)
    real = Real(300, 'left')
    first = world.frame([real], [real.detection('right', 0.6)])
    assert [(id, hand.side) for id, hand in first.items()] == [(1, 'right')]
    for _ in range(4 * DETECT_EVERY):
        last = world.frame([real])
    assert [(id, hand.side) for id, hand in last.items()] == [(1, 'left')]
    assert last[1].side_score > 0.6


def test_keypoints_that_jump_are_not_believed():
    tracker = HandTracker(max_hands=1)
    tracker.begin_frame(WIDTH, HEIGHT)
    wanted = tracker.assigned([Real(300).detection()])
    tracker.saw_assigned(wanted, [hand_at(Real(300).keypoints_px, 'right', 0.9)])
    for elsewhere in (Real(420), Real(300, size=0.4), Real(300, size=2.5)):
        tracker.begin_frame(WIDTH, HEIGHT)
        tracker.saw_followed(tracker.followed(), [hand_at(elsewhere.keypoints_px, 'right', 0.9)])
        assert tracker.hands() == [] and tracker.detector_due
        wanted = tracker.assigned([Real(300).detection()])
        tracker.saw_assigned(wanted, [hand_at(Real(300).keypoints_px, 'right', 0.9)])
        assert [hand.track_id for _, hand in tracker.hands()] == [1]


def test_of_two_that_come_to_one_place_the_one_that_was_there_stays():
    tracker = HandTracker()
    reals = [Real(300), Real(370, 'left')]
    for _ in range(10):
        tracker.begin_frame(WIDTH, HEIGHT)
        where = tracker.followed()
        tracker.saw_followed(where, [hand_at(d.followed_px, d.side, 0.9) for d in where])
        if tracker.detector_due:
            wanted = tracker.assigned([real.detection() for real in reals])
            tracker.saw_assigned(wanted, [hand_at(w.detection.keypoints_px, 'left', 0.9) for w in wanted])
    tracker.begin_frame(WIDTH, HEIGHT)
    there = reals[1].keypoints_px
    tracker.saw_followed(tracker.followed(), [hand_at(there, 'left', 0.9)] * 2)
    assert [hand.track_id for _, hand in tracker.hands()] == [2]
    assert tracker.detector_due


@pytest.mark.parametrize('gone', [Real(300, size=0.05), Real(-40), Real(300, y=530)])
def test_what_is_too_small_or_outside_is_followed_no_further(gone: Real):
    tracker = HandTracker()
    tracker.begin_frame(WIDTH, HEIGHT)
    tracker.saw_assigned(tracker.assigned([gone.detection()]), [hand_at(gone.keypoints_px, 'right', 0.9)])
    assert len(tracker.hands()) == 1
    tracker.begin_frame(WIDTH, HEIGHT)
    assert tracker.followed() == [] and tracker.detector_due


def test_a_hand_that_went_astray_is_brought_back_by_the_detector():
    tracker = HandTracker(max_hands=1, detect_every=1)
    real, astray = Real(300), Real(325)
    for _ in range(3):
        tracker.begin_frame(WIDTH, HEIGHT)
        where = tracker.followed()
        for detection in where:  # it did not go where it was not
            np.testing.assert_allclose(detection.followed_px, real.keypoints_px, atol=1e-3)
        tracker.saw_followed(where, [hand_at(astray.keypoints_px, d.side, 0.9, score=0.2) for d in where])
        assert tracker.detector_due
        wanted = tracker.assigned([real.detection()])
        assert len(wanted) == 1
        tracker.saw_assigned(wanted, [hand_at(real.keypoints_px, 'right', 0.9)])
        ((_, hand),) = tracker.hands()
        assert hand.track_id == 1
        np.testing.assert_allclose(hand.keypoints_2d, real.keypoints_px, atol=1e-3)


def test_what_is_forgotten_comes_back_under_another_id():
    world = World()
    world.frame([Real(300)])
    world.tracker.forget()
    assert set(world.frame([Real(300)])) == {2}
    world.tracker.begin_frame(WIDTH // 2, HEIGHT // 2)  # pixels of another size are other places
    assert world.tracker.followed() == []


def test_masks_which_have_no_keypoints_are_told_apart_by_their_boxes():
    tracker = HandTracker()
    for step in range(20):
        reals = [Real(150 + 10 * step), Real(500 - 5 * step, y=330)]
        tracker.begin_frame(WIDTH, HEIGHT)
        masks = [
            replace(real.detection('right', 0.5), keypoints_px=None) for real in reals[:: 1 - 2 * (step % 2)]
        ]
        wanted = tracker.assigned(masks)
        at = {float(real.detection().bbox_px[0]): real for real in reals}
        tracker.saw_assigned(
            wanted,
            [hand_at(at[float(w.detection.bbox_px[0])].keypoints_px, 'right', 0.5) for w in wanted],
        )
        hands = {hand.track_id: hand for _, hand in tracker.hands()}
        assert [ids_at(hands, real) for real in reals] == [[1], [2]]


@dataclass(frozen=True, eq=False)
class Moment:
    """What a frame shows, and where its hands truly are."""

    image: np.ndarray
    truth: dict[Side, np.ndarray]  #: (21,3) metres, of the hands in view


@pytest.fixture(scope='module')
def clip() -> list[Moment]:
    """Two seconds of a right hand that gestures, and of a left one that comes in."""
    performers = demo_performers(0)
    return [
        Moment(
            frame.image,
            {p.side: shot.posed.keypoints for p, shot in zip(performers, frame.shots, strict=True)},
        )
        for frame in Film(performers, CAMERA, 0).frames([2.6 + number / 30 for number in range(60)])
    ]


def in_view(keypoints: np.ndarray) -> bool:
    pixels = CAMERA.project(keypoints)
    return bool(((pixels > 0) & (pixels < (WIDTH, HEIGHT))).all())


def errors(clip: list[Moment], estimates: list[Estimate]) -> np.ndarray:
    """Mean distance of keypoints from the wrist's, metres, of each hand that was found."""
    found = []
    for moment, estimate in zip(clip, estimates, strict=True):
        for hand in estimate.hands:
            truth = moment.truth[hand.side]
            away = (hand.keypoints_3d - hand.keypoints_3d[0]) - (truth - truth[0])
            found.append(np.linalg.norm(away, axis=1).mean())
    return np.array(found)


def test_in_a_film_hands_keep_their_ids_and_are_as_exact_as_by_the_detector(clip):
    with HandMeshEstimator(streaming=True, threads=1) as estimator:
        followed = [estimator.estimate(moment.image, CAMERA) for moment in clip]
        first = {hand.side: hand.track_id for hand in followed[-1].hands}
        estimator.forget()
        again = estimator.estimate(clip[-1].image, CAMERA)
        boxed = estimator.estimate(
            clip[-1].image, CAMERA, [HandBox(hand.side, hand.bbox_px) for hand in again.hands]
        )
    with HandMeshEstimator(threads=1) as estimator:
        alone = [estimator.estimate(moment.image, CAMERA) for moment in clip]
    assert first.keys() == {'right', 'left'} and first['right'] == 1
    for estimate in followed:
        assert all(first[hand.side] == hand.track_id for hand in estimate.hands)
        assert 'right' in {hand.side for hand in estimate.hands}
    assert np.mean([estimate.detected for estimate in followed]) < 0.2
    both = sum(len(estimate.hands) == 2 for estimate in followed)
    truly = sum(all(map(in_view, moment.truth.values())) for moment in clip)
    assert both >= truly - DETECT_EVERY
    assert errors(clip, followed).mean() < 1.3 * errors(clip, alone).mean()
    assert not set(first.values()) & {hand.track_id for hand in again.hands}
    assert len(boxed.hands) == 2 and {hand.track_id for hand in boxed.hands} == {UNTRACKED}
    assert {hand.track_id for estimate in alone for hand in estimate.hands} == {UNTRACKED}
    assert all(estimate.detected for estimate in alone)


def test_times_add_up_over_both_looks_at_a_frame(clip):
    with HandMeshEstimator(streaming=True, threads=1, detect_every=1) as estimator:
        for moment in clip[:3]:
            times = estimator.estimate(moment.image, CAMERA).timing_ms
            assert times['crop'] + times['network'] + times['place'] <= times['reconstruct']
            assert times['detect'] + times['reconstruct'] <= times['total']


def test_methods_that_cannot_follow_give_ids_all_the_same(clip):
    with HandMeshEstimator('fit', streaming=True) as estimator:
        seen = [estimator.estimate(moment.image, CAMERA) for moment in clip[:6]]
    assert {hand.track_id for estimate in seen for hand in estimate.hands if hand.side == 'right'} == {1}
    assert all(estimate.detected for estimate in seen)


def test_a_network_without_eyes_of_its_own_looks_by_the_detector(clip, maskhand_weights):
    with HandMeshEstimator(weights=maskhand_weights, streaming=True) as estimator:
        seen = [estimator.estimate(moment.image, CAMERA) for moment in clip[:4]]
    assert all(estimate.detected for estimate in seen)
    assert {hand.track_id for estimate in seen for hand in estimate.hands} == {1}


def test_which_networks_have_eyes_of_their_own_is_known_without_pytorch():
    from hand_mesh_ros.inference.weights_file import HAND_BACKBONE

    backbone = pytest.importorskip('hand_mesh_ros.networks.hand_backbone', reason='PyTorch is not installed')
    assert backbone.HAND_BACKBONE == HAND_BACKBONE


def test_a_detector_cannot_run_less_than_never():
    with pytest.raises(ConfigurationError, match='detect_every'):
        HandMeshEstimator('fit', streaming=True, detect_every=0)


def test_hands_are_not_followed_over_a_long_time(clip):
    with HandMeshEstimator(streaming=True, threads=1, max_hands=1) as estimator:
        slowly = [estimator.estimate(clip[k].image, CAMERA, stamp_s=100.0 + k) for k in range(4)]
        fast = [estimator.estimate(clip[k].image, CAMERA, stamp_s=104.0 + k / 30.0) for k in range(4, 10)]
    assert all(estimate.detected for estimate in slowly)
    assert not all(estimate.detected for estimate in fast)
    assert len({hand.track_id for estimate in (*slowly, *fast) for hand in estimate.hands}) == 1
