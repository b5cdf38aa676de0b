"""Offsets between joint definitions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.evaluation.joint_map import (
    MappedPair,
    fit_maps,
    fit_offsets,
    joint_frames,
    mapped,
    read_maps,
    with_cross_fitted_maps,
    with_maps,
    write_maps,
)
from hand_mesh_ros.evaluation.scores import UNKNOWN, Score, summarise
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_points

COUNT = 40
OFFSETS = np.random.default_rng(0).normal(0.0, 0.05, (21, 3))


def hands():
    model = load_hand_model()
    poses = zip(*PoseSampler(model, 5)(np.arange(COUNT)), strict=True)
    return [model.posed(orient, pose, betas, np.zeros(3)).keypoints for orient, pose, betas in poses]


def pairs(offsets=OFFSETS, noise=0.0, sides=('right',)):
    """Truths that differ by offsets, each turned, scaled and moved by itself."""
    rng = np.random.default_rng(1)
    made = []
    for number, joints in enumerate(hands()):
        side = sides[number % len(sides)]
        truth = mapped(joints, 'right', offsets) + rng.normal(0.0, noise, (21, 3))
        if side == 'left':
            joints, truth = mirrored_points(joints), mirrored_points(truth)
        turned = rng.uniform(0.8, 1.2) * truth @ Rotation.random(random_state=number).as_matrix().T
        made.append(MappedPair('set', f'{number}', 'fit', side, joints, turned + [0.1, 0.2, 0.5]))
    return made


def scores():
    return [Score(f'{k}', 'set', 'fit', True, None, {}, UNKNOWN, UNKNOWN) for k in range(COUNT)]


def test_frames_are_rotations_that_mirror_with_the_hand():
    joints = hands()[0]
    frames, unit = joint_frames(joints, 'right')
    np.testing.assert_allclose(frames @ frames.transpose(0, 2, 1), np.tile(np.eye(3), (21, 1, 1)), atol=1e-9)
    assert 0.06 < unit < 0.12
    left = mapped(mirrored_points(joints), 'left', OFFSETS)
    np.testing.assert_allclose(left, mirrored_points(mapped(joints, 'right', OFFSETS)), atol=1e-12)


def test_frames_have_an_axis_out_of_the_palm():
    model = load_hand_model()
    flat = model.posed(np.zeros(3), np.zeros(45), np.zeros(10), np.zeros(3)).keypoints
    frames, _ = joint_frames(flat, 'right')
    assert (frames[5:, 1, 1] < -0.8).all()  # in model axes the back of the hand is +y


@pytest.mark.parametrize('sides', [('right',), ('right', 'left')])
def test_offsets_are_found(sides):
    given = pairs(0.4 * OFFSETS, sides=sides)
    (row,) = summarise(with_cross_fitted_maps(scores(), given), ['fit'])
    assert row['pa_mapped_mm'] < 0.15
    plain = {'set': {'fit': np.zeros((21, 3))}}
    (row,) = summarise(with_maps(scores(), given, plain), ['fit'])
    assert row['pa_mapped_mm'] > 1.5


def test_offsets_from_one_half_do_not_explain_noise_in_the_other():
    given = pairs(0.0 * OFFSETS, noise=0.005)
    (plain,) = summarise(with_maps(scores(), given, {'set': {'fit': np.zeros((21, 3))}}), ['fit'])
    (crossed,) = summarise(with_cross_fitted_maps(scores(), given), ['fit'])
    assert crossed['pa_mapped_mm'] > plain['pa_mapped_mm']
    # While of the very hands that it was fitted to a map explains a little
    (same,) = summarise(with_maps(scores(), given, fit_maps(given)), ['fit'])
    assert same['pa_mapped_mm'] < plain['pa_mapped_mm']


def test_a_few_hands_give_no_map():
    few = pairs()[:7]
    assert fit_maps(few) == {}
    assert all(not score.measures for score in with_cross_fitted_maps(scores(), few))


def test_a_map_belongs_to_its_data_set_and_method():
    given = [replace(pair, dataset='a' if k % 2 else 'b') for k, pair in enumerate(pairs())]
    maps = fit_maps(given)
    assert {name: [*by_method] for name, by_method in maps.items()} == {'a': ['fit'], 'b': ['fit']}
    np.testing.assert_array_equal(maps['a']['fit'], fit_offsets(given[1::2]))


def test_a_file_of_maps_is_read_as_written(tmp_path):
    write_maps(tmp_path / 'map.json', {'set': {'fit': OFFSETS}})
    np.testing.assert_allclose(read_maps(tmp_path / 'map.json')['set']['fit'], OFFSETS, atol=1e-5)


@pytest.mark.parametrize(
    'text', ['', '[]', '{"set": 1}', '{"set": {"fit": [[0, 0]]}}', '{"set": {"fit": [["a", 0, 0]]}}']
)
def test_a_file_that_holds_no_maps_is_refused(tmp_path, text):
    (tmp_path / 'map.json').write_text(text)
    with pytest.raises(FileFormatError, match='map.json'):
        read_maps(tmp_path / 'map.json')
