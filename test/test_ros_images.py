"""Image messages of every encoding become the pixels that OpenCV gives; malformed ones a FrameError."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
from sensor_msgs.msg import CompressedImage, Image

from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.ros import images

HEIGHT, WIDTH = 6, 8
RNG = np.random.default_rng(7)


def image_message(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """A message of ``pixels`` as a camera driver would fill it, written down byte by byte."""
    height, width = pixels.shape[:2]
    swapped = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = [swapped[i].tobytes() + bytes([0xA5]) * padding for i in range(height)]
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=len(rows[0]),
        data=array('B', b''.join(rows)),
    )


def random_pixels(channels: int, dtype: type = np.uint8) -> np.ndarray:
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


# encoding, channels, how OpenCV makes RGB of it. OpenCV names a Bayer pattern by its second row.
COLOUR = [
    ('rgb8', 3, None),
    ('bgr8', 3, cv2.COLOR_BGR2RGB),
    ('rgba8', 4, cv2.COLOR_RGBA2RGB),
    ('bgra8', 4, cv2.COLOR_BGRA2RGB),
    ('mono8', 1, cv2.COLOR_GRAY2RGB),
    ('8UC1', 1, cv2.COLOR_GRAY2RGB),
    ('8UC3', 3, cv2.COLOR_BGR2RGB),
    ('yuv422', 2, cv2.COLOR_YUV2RGB_UYVY),
    ('uyvy', 2, cv2.COLOR_YUV2RGB_UYVY),
    ('yuv422_yuy2', 2, cv2.COLOR_YUV2RGB_YUY2),
    ('yuyv', 2, cv2.COLOR_YUV2RGB_YUY2),
    ('bayer_rggb8', 1, cv2.COLOR_BayerBG2RGB),
    ('bayer_bggr8', 1, cv2.COLOR_BayerRG2RGB),
    ('bayer_gbrg8', 1, cv2.COLOR_BayerGR2RGB),
    ('bayer_grbg8', 1, cv2.COLOR_BayerGB2RGB),
]


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(('encoding', 'channels', 'code'), COLOUR)
def test_colour_encodings_match_opencv(encoding, channels, code, big_endian, padding):
    pixels = random_pixels(channels)
    expected = pixels if code is None else cv2.cvtColor(pixels, code)
    rgb = images.rgb_from_message(image_message(pixels, encoding, padding, big_endian))
    assert rgb.dtype == np.uint8 and rgb.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(rgb, expected)


def test_bayer_pattern_is_that_of_its_name():
    """An even red area seen through an RGGB filter comes out red: the naming is not OpenCV's."""
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    mosaic[0::2, 0::2] = 200
    rgb = images.rgb_from_message(image_message(mosaic, 'bayer_rggb8'))
    np.testing.assert_array_equal(rgb[2:-2, 2:-2], np.broadcast_to([200, 0, 0], (HEIGHT - 4, WIDTH - 4, 3)))


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('big_endian', [False, True])
def test_mono16_keeps_its_order_of_bytes(big_endian, padding):
    pixels = random_pixels(1, np.uint16)
    pixels[0, :3] = (0, 257, 65535)
    rgb = images.rgb_from_message(image_message(pixels, 'mono16', padding, big_endian))
    expected = np.rint(pixels / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(rgb, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('big_endian', [False, True])
def test_depth_in_millimetres_becomes_metres(big_endian, padding):
    pixels = random_pixels(1, np.uint16)
    pixels[1, :3] = (0, 1, 1500)
    depth = images.depth_from_message(image_message(pixels, '16UC1', padding, big_endian))
    assert depth.dtype == np.float32
    assert np.isnan(depth[1, 0]) and depth[1, 2] == np.float32(1.5)
    np.testing.assert_allclose(depth[pixels > 0], pixels[pixels > 0] / 1000.0, rtol=1e-6)


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('big_endian', [False, True])
def test_float_depth_is_taken_as_it_is(big_endian, padding):
    pixels = RNG.uniform(0.1, 5.0, (HEIGHT, WIDTH)).astype(np.float32)
    pixels[0, :5] = (np.nan, np.inf, -np.inf, 0.0, -1.0)
    depth = images.depth_from_message(image_message(pixels, '32FC1', padding, big_endian))
    assert np.isnan(depth[0, :5]).all()
    np.testing.assert_array_equal(depth[1:], pixels[1:])


@pytest.mark.parametrize('extension', ['.jpg', '.png', '.webp'])
@pytest.mark.parametrize('grey', [False, True])
def test_compressed_images_match_opencv(extension, grey):
    pixels = cv2.resize(random_pixels(1 if grey else 3), (64, 48))
    _, encoded = cv2.imencode(extension, pixels)
    rgb = images.rgb_from_message(CompressedImage(format=extension, data=array('B', encoded.tobytes())))
    expected = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(rgb, expected)
    if extension == '.png':
        np.testing.assert_array_equal(rgb[..., 0], pixels if grey else pixels[..., 2])


def test_own_messages_read_back():
    pixels = random_pixels(3)
    np.testing.assert_array_equal(images.rgb_from_message(images.message_from_rgb(pixels)), pixels)
    flipped = pixels[:, ::-1]  # a view whose memory is in another order
    np.testing.assert_array_equal(images.rgb_from_message(images.message_from_rgb(flipped)), flipped)
    smooth = cv2.resize(pixels, (640, 480), interpolation=cv2.INTER_CUBIC)
    back = images.rgb_from_message(images.jpeg_from_rgb(smooth))
    assert np.abs(back.astype(int) - smooth).mean() < 3


def malformed() -> dict[str, Image | CompressedImage]:
    good = random_pixels(3)
    names = ('short', 'long', 'no width', 'no height', 'unknown', 'unnamed', 'small step', 'huge')
    cases = {name: image_message(good, 'rgb8') for name in names}
    cases['short'].data = cases['short'].data[:-1]
    cases['long'].data.append(0)
    cases['no width'].width = 0
    cases['no height'].height = 0
    cases['unknown'].encoding = 'plaid8'
    cases['unnamed'].encoding = ''
    cases['small step'].step -= 1
    cases['huge'].width = cases['huge'].height = cases['huge'].step = 2**32 - 1
    cases['deep'] = image_message(random_pixels(1, np.uint16), '16UC1')
    cases['odd yuv'] = image_message(RNG.integers(0, 255, (4, 5, 2), np.uint8), 'yuv422')
    cases['empty'] = Image()
    cases['empty file'] = CompressedImage(format='jpeg')
    cases['no picture'] = CompressedImage(format='jpeg', data=array('B', b'not a picture at all'))
    cases['cut png'] = images.jpeg_from_rgb(good)
    cases['cut png'].data = cases['cut png'].data[:40]
    return cases


@pytest.mark.parametrize('case', list(malformed()))
def test_malformed_images_are_frame_errors(case):
    with pytest.raises(FrameError):
        images.rgb_from_message(malformed()[case])


def test_colours_are_no_depth():
    with pytest.raises(FrameError, match='rgb8'):
        images.depth_from_message(image_message(random_pixels(3), 'rgb8'))


@pytest.mark.parametrize(('encoding', 'channels'), [(name, channels) for name, channels, _ in COLOUR])
def test_smallest_images_are_read_or_refused(encoding, channels):
    """A 1x1 image is nothing to look for hands in, but it must not bring anything down."""
    message = image_message(np.full((1, 1, channels), 9, np.uint8), encoding)
    try:
        assert images.rgb_from_message(message).shape == (1, 1, 3)
    except FrameError:
        assert encoding.startswith(('yu', 'uyvy', 'bayer'))


def test_8k_passes():
    message = images.message_from_rgb(np.zeros((4320, 7680, 3), np.uint8))
    assert images.rgb_from_message(message).shape == (4320, 7680, 3)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
@pytest.mark.parametrize('hand', [1, 200, 255])
def test_masks_are_what_is_bright(encoding, padding, hand):
    inside = RNG.random((HEIGHT, WIDTH)) < 0.5
    pixels = np.where(inside, hand, 0).astype(np.uint8)
    mask = images.mask_from_message(image_message(pixels, encoding, padding))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, inside)


def test_a_grey_border_of_a_mask_is_cut_in_the_middle():
    mask = images.mask_from_message(image_message(np.array([[0, 1, 127, 128, 255]], np.uint8), 'mono8'))
    assert mask.tolist() == [[False, False, False, True, True]]


def test_own_masks_and_depth_read_back():
    inside = RNG.random((HEIGHT, WIDTH)) < 0.5
    message = images.message_from_mask(inside)
    assert (message.encoding, message.step, set(message.data)) == ('mono8', WIDTH, {0, 255})
    np.testing.assert_array_equal(images.mask_from_message(message), inside)
    depth_m = RNG.uniform(0.1, 60.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth_m[0, :4] = (0.0, np.nan, np.inf, 70.0)
    back = images.depth_from_message(images.message_from_depth(depth_m))
    assert np.isnan(back[0, :4]).all()
    np.testing.assert_allclose(back[1:], depth_m[1:], atol=0.00051)


@pytest.mark.parametrize('encoding', ['rgb8', 'mono16', '32FC1', '8UC3', 'plaid8', ''])
def test_only_grey_pictures_are_masks(encoding):
    pixels = random_pixels(3) if encoding in ('rgb8', '8UC3') else random_pixels(1, np.uint16)
    with pytest.raises(FrameError):
        images.mask_from_message(image_message(pixels, encoding))


@pytest.mark.parametrize('field', ['width', 'height', 'step', 'data'])
def test_malformed_masks_and_depth_are_frame_errors(field):
    for pixels, encoding, read in (
        (random_pixels(1), 'mono8', images.mask_from_message),
        (random_pixels(1, np.uint16), '16UC1', images.depth_from_message),
        (np.ones((HEIGHT, WIDTH), np.float32), '32FC1', images.depth_from_message),
    ):
        message = image_message(pixels, encoding)
        if field == 'data':
            message.data = message.data[:-1]
        else:
            setattr(message, field, getattr(message, field) - 1 if field == 'step' else 0)
        with pytest.raises(FrameError):
            read(message)


def png_chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    return (len(content) if length is None else length).to_bytes(4, 'big') + kind + content + bytes(4)


def test_pictures_that_claim_too_much_are_refused_before_they_are_decoded():
    """OpenCV would take, and fill, as much memory as they claim."""
    header = (64).to_bytes(4, 'big') * 2 + bytes([8, 2, 0, 0, 0])
    large = (30_000).to_bytes(4, 'big') * 2 + bytes([8, 2, 0, 0, 0])
    end = png_chunk(b'IEND', b'')
    start = b'\x89PNG\r\n\x1a\n'
    _, jpeg = cv2.imencode('.jpg', np.zeros((16, 16, 3), np.uint8))
    content = jpeg.tobytes()
    place = content.index(b'\xff\xc0') + 5  # height and width of the frame
    contents = {
        'whole JPEG': content[:place] + b'\xff\xff\xff\xff' + content[place + 4 :],
        'chunk': start + png_chunk(b'IHDR', header) + png_chunk(b'IDAT', b'few bytes', 0xF0000000) + end,
        'behind its end': start + png_chunk(b'IHDR', header) + end + b'\xf0' * 50,
        'picture': start + png_chunk(b'IHDR', large) + png_chunk(b'IDAT', b'few bytes') + end,
        'WebP': b'RIFF\0\0\0\0WEBPVP8X' + bytes(8) + b'\xff\xff\x00' * 2 + bytes(50),
        'other': b'BM' + bytes(100),
    }
    for name, content in contents.items():
        with pytest.raises(FrameError, match='pixels|no whole JPEG'):
            images.rgb_from_message(CompressedImage(data=array('B', content)))
            pytest.fail(name)
