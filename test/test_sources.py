"""Images, folders and videos as frames."""

import cv2
import numpy as np
import pytest

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.sources import count_frames, list_sources, read_frames


def write_image(path, colour_bgr):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((24, 32, 3), colour_bgr, np.uint8))


def test_folders_are_read_in_order_at_any_depth(tmp_path):
    for name in ('b/2.png', 'b/1.png', 'a.png'):
        write_image(tmp_path / name, (0, 0, 0))
    (tmp_path / 'notes.txt').write_text('not an image')
    assert list_sources([tmp_path]) == [tmp_path / n for n in ('a.png', 'b/1.png', 'b/2.png')]


def test_colours_come_as_rgb(tmp_path):
    write_image(tmp_path / 'red.png', (0, 0, 255))
    (frame,) = read_frames(tmp_path / 'red.png')
    assert frame.image.shape == (24, 32, 3)
    np.testing.assert_array_equal(frame.image[0, 0], [255, 0, 0])
    assert (frame.index, frame.stamp) == (0, 0.0)


def test_a_video_gives_all_frames_with_stamps(tmp_path):
    path = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 25.0, (64, 48))
    for i in range(10):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    frames = list(read_frames(path))
    assert count_frames(path) == len(frames) == 10
    np.testing.assert_allclose([f.stamp for f in frames], np.arange(10) / 25.0)
    assert np.all(np.diff([f.image.mean() for f in frames]) > 0)


@pytest.mark.parametrize('name', ['broken.jpg', 'broken.mp4'])
def test_a_damaged_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'\xff\xd8\xff not really')
    with pytest.raises(FileFormatError, match=name):
        list(read_frames(path))


def test_a_missing_or_useless_path_is_told_at_once(tmp_path):
    (tmp_path / 'table.csv').write_text('')
    (tmp_path / 'empty').mkdir()
    for name in ('missing.png', 'table.csv', 'empty'):
        with pytest.raises(ConfigurationError, match=name):
            list_sources([tmp_path / name])
