"""Files of boxes and cameras by image name: found by the right key, refused when wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hand_mesh_ros.detection.boxes import load_boxes
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.keyed_files import load_cameras

BOX = {'side': 'left', 'bbox': [10, 20, 110.5, 220]}


@pytest.fixture
def written(tmp_path):
    def write(content) -> Path:
        path = tmp_path / 'keyed.json'
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
        return path

    return write


def test_boxes_are_read(written):
    boxes = load_boxes(written({'a.jpg': [BOX, {**BOX, 'side': 'right', 'score': 0.5}], 'none.jpg': []}))
    first, second = boxes.get(Path('/photos/a.jpg'))
    assert (first.side, first.score, second.side, second.score) == ('left', 1.0, 'right', 0.5)
    np.testing.assert_array_equal(first.bbox_px, np.array([10, 20, 110.5, 220], np.float32))
    assert boxes.get(Path('none.jpg')) == []
    assert boxes.get(Path('other.jpg')) is None
    assert boxes.get(Path('other.jpg'), []) == []


def test_a_byte_order_mark_is_no_hindrance(written):
    assert len(load_boxes(written('\ufeff' + json.dumps({'a.jpg': [BOX]})))) == 1


def test_folder_and_name_goes_before_name(written):
    cameras = load_cameras(written({'c.jpg': [1, 1, 0, 0], 'b/c.jpg': [2, 2, 0, 0]}))
    assert cameras.get(Path('a/b/c.jpg')) == (2.0, 2.0, 0.0, 0.0)
    assert cameras.get(Path('a/x/c.jpg')) == (1.0, 1.0, 0.0, 0.0)
    assert cameras.get(Path('c.jpg')) == (1.0, 1.0, 0.0, 0.0)


def test_the_folder_of_a_bare_file_name_is_the_current_one(written, tmp_path, monkeypatch):
    cameras = load_cameras(written({'left/c.jpg': [2, 2, 0, 0]}))
    (tmp_path / 'left/sub').mkdir(parents=True)
    for folder, image in (('left', 'c.jpg'), ('left/sub', '../c.jpg'), ('', './left/c.jpg')):
        monkeypatch.chdir(tmp_path / folder)
        assert cameras.get(Path(image)) == (2.0, 2.0, 0.0, 0.0)
    (tmp_path / 'link').symlink_to(tmp_path / 'left')
    assert cameras.get(tmp_path / 'link/c.jpg') is None


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [
        ('{"a.jpg": ', 'JSON'),
        ('[1, 2]', 'one object'),
        ('{"a.jpg": [], "a.jpg": []}', 'more than once'),
        ('[' * 100000, 'JSON'),
        ({'a/b/c.jpg': []}, 'folder/name'),
        ({'': []}, 'folder/name'),
        ({'a.jpg': BOX}, 'must be a list'),
        ({'a.jpg': [{'side': 'left'}]}, '"side", "bbox"'),
        ({'a.jpg': [{**BOX, 'sids': 1}]}, '"side", "bbox"'),
        ({'a.jpg': [{**BOX, 'side': 'Left'}]}, '"left" or "right"'),
        ({'a.jpg': [{**BOX, 'side': ['left']}]}, '"left" or "right"'),
        ({'a.jpg': [{**BOX, 'bbox': [1, 2, 3]}]}, 'four numbers'),
        ({'a.jpg': [{**BOX, 'bbox': [1, 2, '3', 4]}]}, 'four numbers'),
        ({'a.jpg': [{**BOX, 'bbox': [1, 2, True, 4]}]}, 'four numbers'),
        ({'a.jpg': [{**BOX, 'bbox': [100, 100, 50, 50]}]}, 'width, height'),
        ('{"a.jpg": [{"side": "left", "bbox": [0, 0, NaN, 5]}]}', 'NaN'),
        ('{"a.jpg": [{"side": "left", "bbox": [0, 0, 1e999, 5]}]}', 'four numbers'),
        ({'a.jpg': [{**BOX, 'bbox': [0, 0, 10**400, 5]}]}, 'four numbers'),
        ({'a.jpg': [{**BOX, 'score': 1.5}]}, '0 to 1'),
        ({'a.jpg': [{**BOX, 'score': 10**400}]}, '0 to 1'),
    ],
)
def test_wrong_files_are_refused_with_path_and_reason(written, content, complaint):
    path = written(content)
    with pytest.raises(FileFormatError, match='keyed.json') as caught:
        load_boxes(path)
    assert complaint in str(caught.value)


def test_wrong_entries_name_their_key(written):
    with pytest.raises(FileFormatError, match=r"'b/c\.jpg'"):
        load_boxes(written({'a.jpg': [BOX], 'b/c.jpg': [3]}))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileFormatError, match='nowhere.json'):
        load_boxes(tmp_path / 'nowhere.json')


@pytest.mark.parametrize('value', [[0, 500, 1, 1], [500, 500, 1], {'fx': 1}, [500, 500, None, 1], 'x'])
def test_wrong_cameras_are_refused(written, value):
    with pytest.raises(FileFormatError, match=r"'a\.jpg'"):
        load_cameras(written({'a.jpg': value}))


def test_a_box_beyond_float32_is_refused(written):
    for bbox in ([1, 2, 1e39, 40], [-1e39, 2, 3, 4], [1, 2, 1.0000000001, 4]):
        with pytest.raises(FileFormatError, match='bbox'):
            load_boxes(written({'a.jpg': [{'side': 'left', 'bbox': bbox}]}))
