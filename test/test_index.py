"""The project's own format of annotated images."""

import json

import numpy as np
import pytest

from hand_mesh_ros.datasets.annotated import read_index
from hand_mesh_ros.errors import FileFormatError

SAMPLE = {
    'id': 'one',
    'set': 'mine',
    'image': 'images/1.jpg',
    'side': 'left',
    'K': [500.0, 510.0, 320.0, 240.0],
    'j3d': np.full((21, 3), 0.5).tolist(),
    'j2d': np.arange(42.0).reshape(21, 2).tolist(),
    'vis': [1] * 20 + [0],
    'mask': 'masks/1.png',
}


def write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_every_field_is_read(tmp_path):
    (hand,) = read_index(write(tmp_path / 'index.json', {'samples': [SAMPLE]}))
    assert (hand.id, hand.dataset, hand.side) == ('one', 'mine', 'left')
    assert hand.image == tmp_path / 'images/1.jpg'
    assert hand.intrinsics == (500.0, 510.0, 320.0, 240.0)
    assert hand.keypoints_3d.shape == (21, 3)
    assert hand.keypoints_2d[20].tolist() == [40.0, 41.0]
    assert hand.visible.sum() == 20
    assert hand.mask == tmp_path / 'masks/1.png'


def test_ground_truth_may_be_missing(tmp_path):
    (hand,) = read_index(
        write(tmp_path / 'index.json', {'samples': [{'id': 'x', 'image': 'x.png', 'j3d': None}]})
    )
    assert hand.keypoints_3d is None and hand.keypoints_2d is None and hand.intrinsics is None
    assert hand.mask is None


def test_pixels_are_projected_where_they_are_missing(tmp_path):
    (hand,) = read_index(write(tmp_path / 'index.json', {'samples': [{**SAMPLE, 'j2d': None}]}))
    np.testing.assert_allclose(hand.keypoints_2d[0], [500.0 + 320.0, 510.0 + 240.0])


@pytest.mark.parametrize(
    'document',
    [
        'not json',
        '[]',
        {'samples': 3},
        {'samples': ['x']},
        {'samples': [{**SAMPLE, 'K': [1, 2]}]},
        {'samples': [{**SAMPLE, 'j3d': 'abc'}]},
        {'samples': [{'id': 'no image'}]},
        {'samples': [{**SAMPLE, 'j2d': [[None, 1.0]] + SAMPLE['j2d'][1:]}]},
        {'samples': [{**SAMPLE, 'side': 'both'}]},
        {'samples': [{**SAMPLE, 'mask': 1}]},
    ],
)
def test_another_format_is_refused_with_its_path(tmp_path, document):
    with pytest.raises(FileFormatError, match='index.json'):
        read_index(write(tmp_path / 'index.json', document))
