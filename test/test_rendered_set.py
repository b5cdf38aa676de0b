"""Rendered pictures as a data set: what is written is what is read, and shows what it says."""

import numpy as np
import pytest

from hand_mesh_ros.datasets.annotated import read_index
from hand_mesh_ros.datasets.rendered_set import write_rendered_set
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.sources import read_image


def test_pictures_show_the_hands_that_the_index_says(tmp_path):
    hands = SyntheticHands(seed=5, size=96)
    write_rendered_set(tmp_path / 'plain', hands, 4, 'plain')
    write_rendered_set(tmp_path / 'covered', SyntheticHands(seed=5, size=96, covered=0.4), 4, 'covered')
    plain, covered = (read_index(tmp_path / name / 'index.json') for name in ('plain', 'covered'))
    assert [hand.id for hand in plain] == ['00000', '00001', '00002', '00003']
    for number, (hand, other) in enumerate(zip(plain, covered, strict=True)):
        picture, keypoints, view = hands.picture(number, 0.7)
        np.testing.assert_array_equal(read_image(hand.image), picture)
        np.testing.assert_allclose(hand.keypoints_3d, keypoints @ view.R_crop_camera.T, atol=1e-6)
        seen = view.to_unit(keypoints) * 48 + 47.5
        np.testing.assert_allclose(hand.keypoints_2d, seen, atol=0.05)
        np.testing.assert_array_equal(hand.keypoints_3d, other.keypoints_3d)
        assert (read_image(other.image) != picture).any()


def test_nothing_is_written_for_nothing(tmp_path):
    with pytest.raises(ConfigurationError, match='count'):
        write_rendered_set(tmp_path, SyntheticHands(size=64), 0, 'none')
