"""A user's own masks as crops: from pictures and from bags, with nothing lost in silence."""

from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.datasets.mask_bags import is_bag, masks_in_bag
from hand_mesh_ros.datasets.mask_sources import MaskPicture, Unusable, collect_masks, masks_in_folder
from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.depth_files import write_mask, write_picture
from hand_mesh_ros.errors import CameraError, ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.mask_view import view_of_mask
from hand_mesh_ros.rendering.zbuffer import rasterise

MODEL = load_hand_model()
SIZE = 96
CAMERA = Camera(320, 240, 290.0, 292.0, 162.0, 118.0)


def hand_mask(x_m: float, camera: Camera = CAMERA) -> np.ndarray:
    hand = MODEL.posed(np.array([1.2, 1.2, 0.9]), np.full(45, 0.1), np.zeros(10), np.zeros(3))
    moved = np.array([x_m, 0.01, 0.6]) - hand.keypoints.mean(0)
    return rasterise(hand.vertices + moved, MODEL.faces, camera).mask


def calibrated(_file, width, height):
    assert (width, height) == (CAMERA.width, CAMERA.height)
    return CAMERA


def guessed(_file, width, height):
    return Camera.from_fov(width, height)


def crop_of(mask, camera):
    view = view_of_mask(mask, camera, SIZE)
    crop = crop_image(mask.astype(np.uint8) * 255, camera, view, border=cv2.BORDER_CONSTANT)
    return crop, view.focal_px * 2 / SIZE


def test_crops_are_those_that_training_has():
    masks = SyntheticMasks(seed=2, worn_share=0.0, model=MODEL)
    wanted = masks.batch(np.arange(5))
    pictures = [MaskPicture('', drawn.mask > 127, drawn.camera) for drawn in masks.drawn(np.arange(5))]
    found = collect_masks(pictures, SIZE)
    np.testing.assert_array_equal(found.crops, wanted['mask'])
    np.testing.assert_allclose(found.half_sides, wanted['half_side'], rtol=1e-6)
    assert found.half_sides.dtype == np.float32
    assert (found.pictures, found.guessed, found.handless, found.unusable) == (5, 0, (), ())


def test_left_hands_are_mirrored():
    mirrored = replace(CAMERA, cx=CAMERA.width - 1 - CAMERA.cx)
    mask = hand_mask(0.05)
    right = collect_masks([MaskPicture('', mask, CAMERA)], SIZE)
    left = collect_masks([MaskPicture('', mask[:, ::-1], mirrored)], SIZE, side='left')
    same = (right.crops > 127) & (left.crops > 127)
    assert same.sum() / ((right.crops > 127) | (left.crops > 127)).sum() > 0.93
    np.testing.assert_allclose(left.half_sides, right.half_sides, rtol=0.01)


def test_each_blob_is_a_hand():
    both = hand_mask(-0.12) | hand_mask(0.12)
    found = collect_masks([MaskPicture('', both, CAMERA)], SIZE)
    assert len(found.crops) == 2 and found.pictures == 1
    expected = {crop_of(hand_mask(x), CAMERA)[0].tobytes() for x in (-0.12, 0.12)}
    assert {crop.tobytes() for crop in found.crops} == expected
    assert len(collect_masks([MaskPicture('', both, CAMERA)], SIZE, max_hands=1).crops) == 1


def test_nothing_gives_arrays_of_nothing():
    found = collect_masks([], SIZE)
    assert found.crops.shape == (0, SIZE, SIZE) and found.half_sides.shape == (0,)


# Pictures


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'masks'
    (folder / 'later').mkdir(parents=True)
    write_mask(folder / 'a.png', hand_mask(0.0))
    write_mask(folder / 'later' / 'b.png', hand_mask(0.1))
    return folder


def test_pictures_of_a_folder_are_read_in_order(folder):
    found = collect_masks(masks_in_folder(folder, calibrated), SIZE)
    for crop, half_side, x in zip(found.crops, found.half_sides, (0.0, 0.1), strict=True):
        wanted, wanted_half_side = crop_of(hand_mask(x), CAMERA)
        np.testing.assert_array_equal(crop, wanted)
        assert half_side == pytest.approx(wanted_half_side)
    alone = collect_masks(masks_in_folder(folder / 'a.png', calibrated), SIZE)
    np.testing.assert_array_equal(alone.crops, found.crops[:1])


def test_what_is_no_mask_or_shows_no_hand_is_named(folder):
    (folder / 'broken.png').write_bytes((folder / 'a.png').read_bytes()[:50])
    (folder / 'text.png').write_text('no picture')
    write_picture(folder / 'deep.png', np.full((240, 320), 30000, np.uint16))
    write_mask(folder / 'empty.png', np.zeros((240, 320), bool))
    found = collect_masks(masks_in_folder(folder, calibrated), SIZE)
    assert len(found.crops) == 2 and found.pictures == 3
    assert found.handless == (str(folder / 'empty.png'),)
    assert len(found.unusable) == 3
    for name, problem in zip(('broken.png', 'deep.png', 'text.png'), found.unusable, strict=True):
        assert name in problem


def test_guessed_cameras_are_counted(folder):
    assert collect_masks(masks_in_folder(folder, guessed), SIZE).guessed == 2


def test_a_camera_that_cannot_be_is_named(folder):
    def wrong(_file, width, height):
        return Camera(width, height, -1.0, 1.0, 0.0, 0.0)

    found = list(masks_in_folder(folder, wrong))
    assert all(isinstance(one, Unusable) and 'focal' in one.problem for one in found) and len(found) == 2


def test_folders_without_pictures_are_refused_at_once(folder, tmp_path):
    with pytest.raises(ConfigurationError, match='no such'):
        masks_in_folder(tmp_path / 'none', calibrated)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ConfigurationError, match='empty'):
        masks_in_folder(tmp_path / 'empty', calibrated)
    inside = list(masks_in_folder(folder, calibrated, [folder / 'later']))
    assert [one.name for one in inside] == [str(folder / 'a.png')]


# Bags


class Bag:
    """Writes a bag by hand, as a recorder would."""

    def __init__(self, path, storage='MCAP'):
        rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed: no bags to read')
        from rosbags.typesys import Stores, get_typestore

        self._store = get_typestore(Stores.ROS2_JAZZY)
        plugin = getattr(rosbag2.StoragePlugin, storage)
        self._writer = rosbag2.Writer(path, version=8, storage_plugin=plugin)
        self._connections, self._time = {}, 0

    def __enter__(self):
        self._writer.open()
        return self

    def __exit__(self, *_):
        self._writer.close()

    def _add(self, topic, kind, **fields):
        types, name = self._store.types, f'sensor_msgs/msg/{kind}'
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, name, typestore=self._store)
        time = types['builtin_interfaces/msg/Time'](sec=self._time, nanosec=0)
        header = types['std_msgs/msg/Header'](stamp=time, frame_id=fields.pop('frame_id'))
        message = types[name](header=header, **fields)
        data = self._store.serialize_cdr(message, name)
        self._writer.write(self._connections[topic], self._time, data)
        self._time += 1

    def image(self, pixels, topic='/hand_mesh/hand_mask', frame_id='depth', encoding='mono8', padding=0):
        padded = np.pad(pixels, ((0, 0), (0, padding)), constant_values=255)
        self._add(
            topic,
            'Image',
            frame_id=frame_id,
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=padded.shape[1],
            data=padded.reshape(-1),
        )

    def info(self, camera, topic='/camera/camera_info', frame_id='depth'):
        roi = self._store.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        self._add(
            topic,
            'CameraInfo',
            frame_id=frame_id,
            height=camera.height,
            width=camera.width,
            distortion_model='plumb_bob',
            d=np.array(camera.distortion or [0.0] * 5),
            k=camera.K.reshape(-1) if camera.calibrated else np.zeros(9),
            r=np.eye(3).reshape(-1),
            p=np.zeros(12),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )


def pixels(x_m: float) -> np.ndarray:
    return hand_mask(x_m).astype(np.uint8) * 255


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
def test_masks_of_a_bag_are_those_of_pictures(tmp_path, storage):
    path = tmp_path / 'bag'
    with Bag(path, storage) as bag:
        bag.info(replace(CAMERA, fx=100.0))
        bag.image(pixels(0.0))
        bag.image(pixels(0.1), padding=13)
        bag.image(hand_mask(0.1).astype(np.uint8), encoding='8UC1')
        bag.info(CAMERA)  # the newest counts
    assert is_bag(path) and not is_bag(tmp_path)
    found = collect_masks(masks_in_bag(path, guessed), SIZE)
    assert (found.pictures, found.guessed, found.unusable) == (3, 0, ())
    for crop, half_side, x in zip(found.crops, found.half_sides, (0.0, 0.1, 0.1), strict=True):
        wanted, wanted_half_side = crop_of(hand_mask(x), CAMERA)
        np.testing.assert_array_equal(crop, wanted)
        assert half_side == pytest.approx(wanted_half_side)
    (file,) = [*path.glob('*.mcap'), *path.glob('*.db3')]
    assert is_bag(file)
    np.testing.assert_array_equal(collect_masks(masks_in_bag(file, guessed), SIZE).crops, found.crops)
    given = collect_masks(masks_in_bag(path, guessed, use_camera_info=False), SIZE)
    assert given.guessed == 3


def camera_in(path):
    return next(picture.camera for picture in masks_in_bag(path, guessed))


def test_the_camera_is_that_of_the_masks_frame(tmp_path):
    bent = replace(CAMERA, distortion_model='plumb_bob', distortion=(-0.1, 0.02, 0.0, 0.0, 0.0))
    with Bag(tmp_path / 'bag') as bag:
        bag.info(replace(CAMERA, fx=100.0), '/colour/camera_info', 'colour')
        bag.info(bent)
        bag.image(pixels(0.0))
    assert camera_in(tmp_path / 'bag') == bent


def test_cameras_that_cannot_be_told_apart_are_refused(tmp_path):
    with Bag(tmp_path / 'bag') as bag:
        bag.info(replace(CAMERA, fx=100.0), '/left/camera_info', 'left')
        bag.info(CAMERA, '/right/camera_info', 'right')
        bag.image(pixels(0.0))
    with pytest.raises(ConfigurationError, match='/left/camera_info, /right/camera_info.*--camera'):
        camera_in(tmp_path / 'bag')


@pytest.mark.parametrize(
    'camera',
    [None, Camera.from_fov(320, 240), replace(CAMERA, width=640)],
    ids=['none', 'zero', 'other size'],
)
def test_without_a_camera_that_can_be_the_masks_it_is_guessed(tmp_path, camera):
    with Bag(tmp_path / 'bag') as bag:
        if camera is not None:
            bag.info(camera)
        bag.image(pixels(0.0))
    assert camera_in(tmp_path / 'bag') == Camera.from_fov(320, 240)
    with pytest.raises(CameraError):  # a field of view that cannot be is no damaged bag
        list(masks_in_bag(tmp_path / 'bag', lambda _, width, height: Camera.from_fov(width, height, 500.0)))


def test_messages_that_are_no_masks_are_named(tmp_path):
    with Bag(tmp_path / 'bag') as bag:
        bag.image(np.zeros((240, 960), np.uint8), encoding='rgb8')
        bag.image(pixels(0.0))
        bag.image(np.zeros((240, 320), np.uint8))
    found = collect_masks(masks_in_bag(tmp_path / 'bag', guessed), SIZE)
    assert len(found.crops) == 1 and found.pictures == 2
    assert len(found.unusable) == 1 and 'message 0' in found.unusable[0] and 'rgb8' in found.unusable[0]
    assert len(found.handless) == 1 and 'message 2' in found.handless[0]


def test_the_topic_is_found_or_named(tmp_path):
    with Bag(tmp_path / 'bag') as bag:
        bag.image(pixels(0.0), '/one/hand_mask')
        bag.image(pixels(0.1), '/two/hand_mask')
        bag.image(pixels(0.0), '/segmented')
    for topic, complaint in (
        (None, '/one/hand_mask, /segmented, /two/hand_mask'),
        ('/none', '/none.*--topic'),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            list(masks_in_bag(tmp_path / 'bag', guessed, topic))
    for topic in ('/two/hand_mask', '/segmented'):
        assert len(list(masks_in_bag(tmp_path / 'bag', guessed, topic))) == 1


def test_damaged_bags_are_named(tmp_path):
    with Bag(tmp_path / 'bag') as bag:
        for x in (0.0, 0.1):
            bag.image(pixels(x))
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b'', b'\0' * 500):
        file.write_bytes(damaged)
        with pytest.raises(FileFormatError, match='bag'):
            list(masks_in_bag(tmp_path / 'bag', guessed))
    (tmp_path / 'bag' / 'metadata.yaml').write_text('[')
    with pytest.raises(FileFormatError, match='bag'):
        list(masks_in_bag(tmp_path / 'bag', guessed))


def test_without_rosbags_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbags.rosbag2', None)
    with pytest.raises(ConfigurationError, match='pip install rosbags'):
        list(masks_in_bag(tmp_path, guessed))
