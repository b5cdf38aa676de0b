"""Images, folders and videos as frames."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.sources import count_frames, list_sources, missing_frames, read_frames


def write_image(path, colour_bgr):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((24, 32, 3), colour_bgr, np.uint8))


def write_video(path, presented_at, rate=30.0):
    """Frames shown at these multiples of 1 / rate, ever brighter."""
    options = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    codec = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, (64, 48), options)
    for i, time in enumerate(presented_at):
        _, jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 3 * i, np.uint8))
        writer.set(cv2.VIDEOWRITER_PROP_PTS, time)
        writer.write(jpeg.reshape(1, -1))
    writer.release()


def test_folders_are_read_in_order_at_any_depth(tmp_path):
    for name in ('b/2.png', 'b/1.png', 'a.png'):
        write_image(tmp_path / name, (0, 0, 0))
    (tmp_path / 'notes.txt').write_text('not an image')
    assert list_sources([tmp_path]) == [tmp_path / n for n in ('a.png', 'b/1.png', 'b/2.png')]


def test_what_is_hidden_is_left_out_unless_named(tmp_path):
    for name in ('a.png', '._a.png', '.thumbnails/a.png'):
        write_image(tmp_path / name, (0, 0, 0))
    assert list_sources([tmp_path]) == [tmp_path / 'a.png']
    assert list_sources([tmp_path / '._a.png']) == [tmp_path / '._a.png']


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    write_image(tmp_path / 'elsewhere/a.png', (0, 0, 0))
    write_image(tmp_path / 'in/b.png', (0, 0, 0))
    (tmp_path / 'in/link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'in/same').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/back').symlink_to(tmp_path / 'in')
    assert list_sources([tmp_path / 'in']) == [tmp_path / 'in/b.png', tmp_path / 'in/link/a.png']


def test_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    write_image(tmp_path / 'a.png', (0, 0, 0))
    (tmp_path / 'b.png').symlink_to(tmp_path / 'a.png')
    monkeypatch.chdir(tmp_path)
    names = [tmp_path / 'b.png', tmp_path / 'a.png', Path('a.png'), tmp_path]
    assert list_sources(names) == [tmp_path / 'b.png']


def test_outputs_are_no_sources(tmp_path):
    for name in ('a.png', 'out/overlays/a.png', 'out/overlays/deep/a.png'):
        write_image(tmp_path / name, (0, 0, 0))
    (tmp_path / 'link').symlink_to(tmp_path / 'out')
    outputs = [tmp_path / 'link/overlays', tmp_path / 'link/meshes']
    assert list_sources([tmp_path], outputs) == [tmp_path / 'a.png']
    for name in ('out/overlays/a.png', 'out/overlays', 'link/overlays/deep'):
        with pytest.raises(ConfigurationError, match=f'{name}: lies where the output goes'):
            list_sources([tmp_path / name], outputs)


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


def test_stamps_follow_the_clock_of_a_video_of_uneven_rate(tmp_path):
    times = np.r_[np.arange(15), np.arange(15, 75, 4)]
    write_video(tmp_path / 'uneven.mkv', times)
    frames = list(read_frames(tmp_path / 'uneven.mkv'))
    np.testing.assert_allclose([f.stamp for f in frames], times / 30.0, atol=1e-3)
    assert count_frames(tmp_path / 'uneven.mkv') > len(frames)  # claimed by duration: not to be believed
    assert missing_frames(frames[-1]) == 0


def test_stamps_of_an_even_rate_are_free_of_the_containers_rounding(tmp_path):
    write_video(tmp_path / 'even.mkv', range(40), rate=30000 / 1001)
    stamps = [frame.stamp for frame in read_frames(tmp_path / 'even.mkv')]
    np.testing.assert_allclose(stamps, np.arange(40) / 29.97, atol=1e-9)


@pytest.mark.parametrize('name', ['cut.mkv', 'cut.avi'])
def test_frames_that_a_cut_off_video_lacks_are_counted(tmp_path, name):
    path = tmp_path / name
    write_video(path, range(60))
    *_, last = read_frames(path)
    assert (last.index, missing_frames(last)) == (59, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *_, last = read_frames(path)
    assert 10 < last.index < 40
    assert missing_frames(last) == 59 - last.index


def test_a_jpeg_is_turned_as_its_exif_orientation_says(tmp_path):
    image = np.zeros((24, 48, 3), np.uint8)
    image[:, :24] = 255  # white on the left: turned clockwise, on top
    jpeg = cv2.imencode('.jpg', image)[1].tobytes()
    orientation = struct.pack('<HHIHH', 0x0112, 3, 1, 6, 0)  # turn clockwise to see it upright
    exif = b'Exif\0\0II*\0' + struct.pack('<IH', 8, 1) + orientation + bytes(4)
    path = tmp_path / 'turned.jpg'
    path.write_bytes(jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + jpeg[2:])
    (frame,) = read_frames(path)
    assert frame.image.shape == (48, 24, 3)
    assert frame.image[4, 12, 0] > 200 and frame.image[44, 12, 0] < 50


def test_names_that_are_not_utf8(tmp_path):
    image, video = (tmp_path / os.fsdecode(name) for name in (b'caf\xe9.png', b'caf\xe9.mp4'))
    write_image(tmp_path / 'a.png', (0, 0, 255))
    (tmp_path / 'a.png').rename(image)
    video.write_bytes(b'')
    (frame,) = read_frames(image)
    np.testing.assert_array_equal(frame.image[0, 0], [255, 0, 0])
    assert count_frames(video) == 0
    with pytest.raises(FileFormatError, match='its path UTF-8'):
        list(read_frames(video))


def test_an_image_too_large_or_not_readable_is_named(tmp_path):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0))
    pixels = chunk(b'IDAT', zlib.compress(bytes(100)))
    (tmp_path / 'huge.png').write_bytes(b'\x89PNG\r\n\x1a\n' + header + pixels + chunk(b'IEND', b''))
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / 'folder.png').mkdir()
    for name in ('huge.png', 'empty.png', 'folder.png', 'missing.png'):
        with pytest.raises(FileFormatError, match=f'{name}: cannot be read'):
            list(read_frames(tmp_path / name))


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


def test_a_png_whose_parts_claim_more_than_the_file_is_named(tmp_path):
    """OpenCV would take, and fill, 4 GB for such a part."""
    write_image(tmp_path / 'a.png', (1, 2, 3))
    content = bytearray((tmp_path / 'a.png').read_bytes())
    place = content.index(b'IDAT') - 4
    content[place : place + 4] = b'\xf0\x00\x00\x00'
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(FileFormatError, match='a.png.*complete'):
        list(read_frames(tmp_path / 'a.png'))
