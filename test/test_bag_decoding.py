"""Messages of bags as pictures and cameras, without ROS."""

import cv2
import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from hand_mesh_ros.bag_labelling.decoding import (
    camera_of,
    camera_of_picture,
    depth_of,
    header_of,
    mask_of,
    rgb_of,
)
from hand_mesh_ros.errors import CameraError, FrameError

STORE = get_typestore(Stores.ROS2_JAZZY)


def kind(name):
    return STORE.types[name]


def header(frame_id='camera'):
    return kind('std_msgs/msg/Header')(kind('builtin_interfaces/msg/Time')(7, 8), frame_id)


def image_message(pixels, encoding):
    rows = np.ascontiguousarray(pixels)
    data = rows.reshape(-1).view(np.uint8)
    height, width = rows.shape[:2]
    return kind('sensor_msgs/msg/Image')(header(), height, width, encoding, 0, len(data) // height, data)


def info_message(**changes):
    roi = kind('sensor_msgs/msg/RegionOfInterest')(0, 0, 0, 0, False)
    fields = {
        'header': header(),
        'height': 240,
        'width': 320,
        'distortion_model': 'plumb_bob',
        'd': np.array([0.1, 0.01, 0.0, 0.0, 0.0]),
        'k': np.array([300.0, 0.0, 160.0, 0.0, 310.0, 120.0, 0.0, 0.0, 1.0]),
        'r': np.eye(3).reshape(-1),
        'p': np.array([290.0, 0.0, 150.0, 0.0, 0.0, 295.0, 110.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        'binning_x': 0,
        'binning_y': 0,
        'roi': roi,
    }
    return kind('sensor_msgs/msg/CameraInfo')(**(fields | changes))


def picture():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16'])
def test_every_encoding_is_read_padded_or_not(encoding):
    image = picture()
    codes = {
        'bgr8': cv2.COLOR_RGB2BGR,
        'rgba8': cv2.COLOR_RGB2RGBA,
        'bgra8': cv2.COLOR_RGB2BGRA,
        'mono8': cv2.COLOR_RGB2GRAY,
        'mono16': cv2.COLOR_RGB2GRAY,
    }
    pixels = image if encoding == 'rgb8' else cv2.cvtColor(image, codes[encoding])
    shown = image if 'mono' not in encoding else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if encoding == 'mono16':
        pixels = pixels.astype(np.uint16) * 257
    padded = np.zeros((24, pixels[0].nbytes + 5), np.uint8)
    padded[:, :-5] = pixels.reshape(24, -1).view(np.uint8)
    message = image_message(pixels, encoding)
    message.step, message.data = padded.shape[1], padded.reshape(-1)
    np.testing.assert_array_equal(rgb_of(message), shown)


def test_depth_and_masks_are_in_metres_and_yes_or_no():
    millimetres = np.array([[0, 500], [1000, 65535]], np.uint16)
    expected = np.array([[np.nan, 0.5], [1.0, 65.535]], np.float32)
    np.testing.assert_array_equal(depth_of(image_message(millimetres, '16UC1')), expected)
    foreign = image_message(millimetres.byteswap(), '16UC1')
    foreign.is_bigendian = 1
    np.testing.assert_array_equal(depth_of(foreign), expected)
    assert mask_of(image_message(np.array([[0, 1]], np.uint8), 'mono8')).tolist() == [[False, True]]
    assert mask_of(image_message(np.array([[1, 255]], np.uint8), 'mono8')).tolist() == [[False, True]]


@pytest.mark.parametrize(
    'change',
    [
        {'encoding': 'nonsense'},
        {'height': 0},
        {'step': 5},
        {'data': np.zeros(7, np.uint8)},
        {'height': 2**31, 'width': 2**31},
    ],
)
def test_what_is_no_picture_is_told(change):
    message = image_message(picture(), 'rgb8')
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(FrameError):
        rgb_of(message)


def test_yuv_of_an_odd_width_is_told():
    with pytest.raises(FrameError):
        rgb_of(image_message(np.zeros((4, 5, 2), np.uint8), 'yuv422'))


def test_a_compressed_picture_that_is_none_is_told():
    with pytest.raises(FrameError, match='no whole JPEG'):
        rgb_of(kind('sensor_msgs/msg/CompressedImage')(header(), 'jpeg', np.arange(50, dtype=np.uint8)))


def test_the_header_is_read_from_the_bytes_alone():
    data = STORE.serialize_cdr(image_message(picture(), 'rgb8'), 'sensor_msgs/msg/Image')
    read = header_of(bytes(data))
    assert (read.stamp, read.frame_id) == ((7, 8), 'camera')
    assert header_of(bytes(data[:18])) is None
    assert header_of(b'') is None


def test_a_raw_picture_has_a_lens_and_a_rectified_one_has_none():
    raw, rectified = camera_of(info_message(), False), camera_of(info_message(), True)
    assert (raw.fx, raw.cy, raw.distortion) == (300.0, 120.0, (0.1, 0.01, 0.0, 0.0, 0.0))
    assert (rectified.fx, rectified.cy, rectified.distortion) == (290.0, 110.0, ())
    half = camera_of(info_message(binning_x=2, binning_y=2), False)
    assert (half.width, half.height, half.fx, half.cx) == (160, 120, 150.0, 79.75)


def test_a_calibration_that_cannot_be_used_is_a_guess_that_is_told():
    zero = info_message(k=np.zeros(9))
    assert camera_of(zero, False) is None
    with pytest.raises(CameraError):
        camera_of(info_message(distortion_model='nonsense'), False)
    infos = [(None, 'no camera_info'), (zero, 'not calibrated'), (info_message(width=640), '640x240')]
    for info, reason in infos:
        camera, why = camera_of_picture(info, 320, 240, False, 60.0)
        assert not camera.calibrated and reason in why
    assert camera_of_picture(info_message(), 320, 240, False, 60.0)[1] == ''
