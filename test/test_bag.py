"""hand-mesh bag, as one would call it, on bags of rendered frames."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from hand_mesh_ros.bag_labelling.messages import message_types
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.cli.main import main as hand_mesh
from hand_mesh_ros.datasets.demo_clip import demo_performers
from hand_mesh_ros.datasets.film import Film
from hand_mesh_ros.depth_files import millimetres
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.hand import ScaleSource

STORE = message_types()
CAMERA = Camera.from_fov(320, 240)
FRAMES = 60
#: The frame that no reader can decode, where a bag is to have one.
DAMAGED = 31


def kind(name):
    return STORE.types[name]


def header(number, frame_id='camera_optical'):
    stamp = kind('builtin_interfaces/msg/Time')(sec=100 + number // 30, nanosec=number % 30 * 33_333_333)
    return kind('std_msgs/msg/Header')(stamp=stamp, frame_id=frame_id)


def image_message(number, pixels, encoding='rgb8'):
    rows = np.ascontiguousarray(pixels)
    data = rows.reshape(-1).view(np.uint8)
    return kind('sensor_msgs/msg/Image')(
        header=header(number),
        height=rows.shape[0],
        width=rows.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // rows.shape[0],
        data=data,
    )


def png_message(number, image):
    data = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].reshape(-1)
    return kind('sensor_msgs/msg/CompressedImage')(header=header(number), format='png', data=data)


def info_message(number, camera=CAMERA):
    roi = kind('sensor_msgs/msg/RegionOfInterest')(
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return kind('sensor_msgs/msg/CameraInfo')(
        header=header(number),
        height=camera.height,
        width=camera.width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=camera.K.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def write_bag(path, messages, plugin=StoragePlugin.MCAP):
    """``messages``: (frame number, topic, message or serialized bytes with the type's name)."""
    with Writer(path, version=8, storage_plugin=plugin) as writer:
        connections = {}
        for number, topic, message in messages:
            data, name = message if isinstance(message, tuple) else (None, message.__msgtype__)
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=STORE)
            data = STORE.serialize_cdr(message, name) if data is None else data
            writer.write(connections[topic], 10**18 + number * 33_000_000, data)
    return path


@pytest.fixture(scope='module')
def film():
    """Frames with a hand in each and, from the middle on, a second one."""
    times_s = [2.4 + number / 30.0 for number in range(FRAMES)]
    return [frame.image for frame in Film(demo_performers(0), CAMERA, 0).frames(times_s)]


@pytest.fixture(scope='module')
def bag(film, tmp_path_factory):
    """Raw images with a calibration each, in MCAP."""
    messages = []
    for number, image in enumerate(film):
        messages.append((number, '/camera/camera_info', info_message(number)))
        messages.append((number, '/camera/image_raw', image_message(number, image)))
    return write_bag(tmp_path_factory.mktemp('in') / 'raw', messages)


@pytest.fixture(scope='module')
def compressed_bag(film, tmp_path_factory):
    """Lossless pictures, one of them damaged, with one calibration, in sqlite3."""
    messages = [(0, '/camera/camera_info', info_message(0))]
    for number, image in enumerate(film):
        message = png_message(number, image)
        if number == DAMAGED:
            message.data = message.data[:40]
        messages.append((number, '/camera/image_raw/compressed', message))
    path = tmp_path_factory.mktemp('in') / 'compressed'
    return write_bag(path, messages, StoragePlugin.SQLITE3)


def label(*arguments):
    return hand_mesh(['bag', *map(str, arguments), '--method', 'fit'])


def read(path):
    """All messages of a bag: (topic, time, serialized)."""
    with Reader(path) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]


def hands_of(path, topic='/hand_mesh/hands'):
    return [
        STORE.deserialize_cdr(data, 'hand_mesh_ros/msg/HandMeshArray')
        for name, _, data in read(path)
        if name == topic
    ]


def stamps(messages):
    return [(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages]


@pytest.fixture(scope='module')
def labelled(bag, tmp_path_factory):
    """The hands of a bag, in segments of 20 frames, in one go."""
    out = tmp_path_factory.mktemp('out') / 'hands'
    assert label(bag, out, '--segment', 20) == 0
    return out


def test_every_frame_is_answered_with_the_hands_of_the_estimator(bag, film, tmp_path):
    out = tmp_path / 'hands'
    jsonl = tmp_path / 'records' / 'hands.jsonl'
    assert label(bag, out, '--jsonl', jsonl) == 0
    messages = hands_of(out)
    assert stamps(messages) == [(100 + n // 30, n % 30 * 33_333_333) for n in range(FRAMES)]
    assert {message.header.frame_id for message in messages} == {'camera_optical'}
    assert [t for topic, t, _ in read(out) if topic == '/hand_mesh/hands'] == [
        10**18 + number * 33_000_000 for number in range(FRAMES)
    ]
    calibrated = Camera(320, 240, CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    with HandMeshEstimator('fit', streaming=True) as estimator:
        for message, image in zip(messages, film, strict=True):
            hands = estimator.estimate(image, calibrated).hands
            assert [hand.track_id for hand in message.hands] == [hand.track_id for hand in hands]
            for got, wanted in zip(message.hands, hands, strict=True):
                np.testing.assert_array_equal(got.vertices, wanted.vertices.reshape(-1))
                np.testing.assert_array_equal(got.hand_pose, wanted.hand_pose)
                assert got.scale_source == ScaleSource.NOMINAL_HAND
    assert max(len(message.hands) for message in messages) == 2
    assert len(jsonl.read_text().splitlines()) == FRAMES
    assert (jsonl.parent / 'run.json').exists()
    assert not out.with_name('hands.partial').exists()


def test_the_new_bag_opens_with_other_readers_and_has_the_model_once_and_latched(labelled):
    (file,) = labelled.glob('*.mcap')
    with open(file, 'rb') as stream:
        reader = make_reader(stream)
        assert {schema.name for schema in reader.get_summary().schemas.values()} == {
            'hand_mesh_ros/msg/HandMeshArray',
            'hand_mesh_ros/msg/HandModelInfo',
        }
        assert sum(1 for _ in reader.iter_messages(topics=['/hand_mesh/hands'])) == FRAMES
    with Reader(labelled) as reader:
        (info,) = [c for c in reader.connections if c.topic == '/hand_mesh/info']
        assert info.msgcount == 1
        assert isinstance(info.ext, ConnectionExtRosbag2)
        assert info.ext.offered_qos_profiles[0].durability.name == 'TRANSIENT_LOCAL'
        ((_, _, data),) = reader.messages([info])
    message = STORE.deserialize_cdr(data, info.msgtype)
    assert (message.method, message.vertex_count) == ('fit', 778)


def test_ids_go_on_across_the_borders_of_segments(labelled):
    messages = hands_of(labelled)
    ids = [{hand.side: hand.track_id for hand in message.hands} for message in messages]
    for border in (20, 40):
        for side in ids[border - 1].keys() & ids[border].keys():
            assert ids[border - 1][side] == ids[border][side]
    assert any(message.hands for message in messages)


def test_a_folder_that_is_not_of_a_run_is_left_alone(bag, tmp_path, capsys):
    out, other = tmp_path / 'hands', tmp_path / 'hands.partial'
    out.mkdir()
    other.mkdir()
    (other / 'mine').write_text('kept')
    assert label(bag, out) == 2
    assert (other / 'mine').read_text() == 'kept'
    assert label(bag, '.') == 2
    assert capsys.readouterr().err.count('exists already') == 2


def test_a_run_that_was_killed_goes_on_without_loss_or_repetition(bag, labelled, tmp_path):
    out = tmp_path / 'hands'
    arguments = ['bag', str(bag), str(out), '--method', 'fit', '--segment', '20']
    partial = out.with_name('hands.partial')
    process = subprocess.Popen(
        [sys.executable, '-m', 'hand_mesh_ros.cli.main', *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    deadline = time.monotonic() + 120
    while not (partial / 'unfinished' / '000001').is_dir() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (partial / '000000').is_dir() and not out.exists()
    assert hand_mesh(arguments) == 0
    assert read(out) == read(labelled)
    assert len(stamps(hands_of(out))) == len(set(stamps(hands_of(out)))) == FRAMES
    assert not partial.exists()


def test_a_killed_run_goes_on_with_the_same_options_only(bag, tmp_path, capsys):
    out = tmp_path / 'hands'
    partial = out.with_name('hands.partial')
    partial.mkdir()
    (partial / 'job.json').write_text('{"method": "maskhand"}')
    assert label(bag, out) == 2
    assert 'method maskhand, not fit' in capsys.readouterr().err
    assert label(bag, out, '--restart', '--no-vertices') == 0
    messages = hands_of(out)
    assert len(messages) == FRAMES
    assert not any(len(hand.vertices) for message in messages for hand in message.hands)
    assert label(bag, out) == 2
    assert f'{out}: exists already' in capsys.readouterr().err


def test_a_damaged_picture_is_answered_without_hands_and_told(compressed_bag, tmp_path, capsys):
    out = tmp_path / 'hands'
    assert label(compressed_bag, out, '--namespace', 'left', '--segment', 35) == 1
    captured = capsys.readouterr()
    assert '60 frames' in captured.out and '1 frames malformed' in captured.out
    assert f'{compressed_bag}: frame {DAMAGED}:' in captured.err
    messages = hands_of(out, '/left/hand_mesh/hands')
    assert stamps(messages) == [(100 + n // 30, n % 30 * 33_333_333) for n in range(FRAMES)]
    assert not messages[DAMAGED].hands and messages[DAMAGED - 1].hands
    assert {h.scale_source for m in messages for h in m.hands} == {ScaleSource.NOMINAL_HAND}


def test_a_message_that_cannot_be_deserialized_is_answered_too(film, tmp_path):
    good = STORE.serialize_cdr(image_message(1, film[1]), 'sensor_msgs/msg/Image')
    messages = [
        (0, '/image', image_message(0, film[0])),
        (1, '/image', (bytes(good[:60]), 'sensor_msgs/msg/Image')),
        (2, '/image', (b'\0', 'sensor_msgs/msg/Image')),
        (3, '/image', image_message(3, film[3])),
    ]
    source = write_bag(tmp_path / 'in', messages)
    assert label(source, tmp_path / 'out', '--camera', '300,300,160,120') == 1
    answers = hands_of(tmp_path / 'out')
    assert [len(answer.hands) > 0 for answer in answers] == [True, False, False, True]
    assert stamps(answers)[1] == (100, 33_333_333)
    assert stamps(answers)[2] == (10**9, 66_000_000)  # the time of its record, as it has no stamp


def test_copy_keeps_all_that_was_in_the_bag(film, tmp_path, capsys):
    text = kind('std_msgs/msg/String')(data='something else')
    messages = [(0, '/note', text), *((n, '/image', image_message(n, film[n])) for n in range(3))]
    source = write_bag(tmp_path / 'in', messages)
    assert label(source, tmp_path / 'out', '--copy') == 0
    both = read(tmp_path / 'out')
    assert [m for m in both if m[0] in ('/note', '/image')] == read(source)
    assert [time_ns for _, time_ns, _ in both] == sorted(time_ns for _, time_ns, _ in both)
    assert {topic for topic, _, _ in both} == {'/note', '/image', '/hand_mesh/hands', '/hand_mesh/info'}
    assert label(tmp_path / 'out', tmp_path / 'again', '--copy') == 2
    assert '/hand_mesh/hands already' in capsys.readouterr().err
    assert not (tmp_path / 'again.partial').exists()
    with Reader(tmp_path / 'out') as reader:
        digests = {connection.topic: connection.digest for connection in reader.connections}
    assert digests['/note'] == STORE.hash_rihs01('std_msgs/msg/String')


def test_depth_of_the_same_stamp_is_used_wherever_it_is_in_the_bag(tmp_path, capsys):
    messages = [(0, '/camera_info', info_message(0))]
    times_s = [2.4 + n / 30.0 for n in range(4)]
    for n, frame in enumerate(Film(demo_performers(0), CAMERA, 0, with_depth=True).frames(times_s)):
        messages.append((n, '/image', image_message(n, frame.image)))
        if n != 2:  # three frames late
            depth = millimetres(frame.surfaces.depth_m)
            messages.append((n + 3, '/depth', image_message(n, depth, '16UC1')))
    source = write_bag(tmp_path / 'in', sorted(messages, key=lambda message: message[0]))
    assert label(source, tmp_path / 'out', '--depth-topic', '/depth') == 0
    assert '1 frames without depth' in capsys.readouterr().out
    of_depth = [
        {hand.scale_source for hand in message.hands} == {ScaleSource.DEPTH}
        for message in hands_of(tmp_path / 'out')
    ]
    assert of_depth == [True, True, False, True]


def test_masks_alone_do_for_the_method_of_masks(tmp_path):
    empty = np.zeros((240, 320), np.uint8)
    messages = [(n, '/mask', image_message(n, empty, 'mono8')) for n in range(2)]
    source = write_bag(tmp_path / 'in', messages)
    out = tmp_path / 'out'
    assert hand_mesh(['bag', str(source), str(out), '--method', 'mask2hand', '--mask-topic', 'mask']) == 0
    assert [len(message.hands) for message in hands_of(out)] == [0, 0]


def test_a_place_that_cannot_be_written_to_is_told(bag, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert label(bag, tmp_path / 'file' / 'out') == 2
    assert 'cannot be written' in capsys.readouterr().err


def test_several_bags_in_processes(film, bag, tmp_path, capsys):
    sources = [
        write_bag(tmp_path / name, [(n, '/image', image_message(n, film[n])) for n in range(count)])
        for name, count in (('a', 3), ('b', 2))
    ]
    broken = tmp_path / 'broken'
    broken.mkdir()
    out = tmp_path / 'out'
    options = ['--out', out, '--processes', 2, '--jsonl', tmp_path / 'records']
    assert label(*sources, broken, *options) == 1
    assert str(broken) in capsys.readouterr().err
    assert [len(hands_of(out / name)) for name in ('a', 'b')] == [3, 2]
    assert len((tmp_path / 'records' / 'a' / 'hands.jsonl').read_text().splitlines()) == 3
    assert label(*sources, *options) == 0  # all there already
    assert f'{out / "a"}: exists already, and is left as it is' in capsys.readouterr().out


def test_a_process_that_was_killed_is_told(bag, tmp_path, capsys):
    def kill_first():
        deadline = time.monotonic() + 60
        while not (children := multiprocessing.active_children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in children:
            child.kill()

    killer = threading.Thread(target=kill_first)
    killer.start()
    assert label(bag, '--out', tmp_path / 'out') == 1
    killer.join()
    assert f'{bag}: a process was killed' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert label(bag, '--out', tmp_path / 'file') == 2
    assert 'cannot be made' in capsys.readouterr().err


def test_a_type_whose_definition_is_broken_is_told_before_it_is_copied(film, tmp_path, capsys):
    source = tmp_path / 'in'
    with Writer(source, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        image = image_message(0, film[0])
        images = writer.add_connection('/image', image.__msgtype__, typestore=STORE)
        writer.write(images, 0, STORE.serialize_cdr(image, image.__msgtype__))
        odd = writer.add_connection('/odd', 'odd_msgs/msg/Odd', msgdef='no = definition (', rihs01='odd')
        writer.write(odd, 1, bytes(8))
    about = source / 'metadata.yaml'  # of older recorders it gives no hashes
    about.write_text(about.read_text().replace('hash: odd', "hash: ''").replace('hash: "odd"', "hash: ''"))
    assert label(source, tmp_path / 'out', '--copy') == 2
    assert '/odd cannot be copied' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--image-topic', '/nothing'], 'has no topic /nothing'),
        (
            ['--depth-topic', '/camera/camera_info'],
            'has no topic /camera/camera_info of sensor_msgs/msg/Image',
        ),
        (['--camera-info-topic', '/camera/image_raw'], 'has no topic /camera/image_raw of'),
        (['--namespace', 'my robot'], "'my robot' is no namespace"),
        (['--jsonl', '.'], 'is a folder'),
        (['--segment', '0'], 'at least 1 frame'),
    ],
)
def test_a_topic_that_is_not_there_is_told(bag, tmp_path, capsys, options, words):
    assert label(bag, tmp_path / 'out', *options) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bag_without_images_or_with_several_topics_of_them_is_told(film, tmp_path, capsys):
    empty = write_bag(tmp_path / 'empty', [(0, '/note', kind('std_msgs/msg/String')(data='hello'))])
    assert label(empty, tmp_path / 'out') == 2
    assert f'{empty}: has no images; its topics are /note' in capsys.readouterr().err
    two = write_bag(tmp_path / 'two', [(0, topic, image_message(0, film[0])) for topic in ('/b', '/a')])
    assert label(two, tmp_path / 'out') == 2
    assert (
        f'{two}: has several topics of images, choose with --image-topic: /a, /b' in capsys.readouterr().err
    )
    assert label(tmp_path / 'nowhere', tmp_path / 'out') == 2
    assert f'{tmp_path / "nowhere"}: no such bag' in capsys.readouterr().err


@pytest.mark.parametrize('fixture', ['bag', 'compressed_bag'])
def test_a_truncated_bag_is_told(request, fixture, tmp_path, capsys):
    source = tmp_path / 'in'
    shutil.copytree(request.getfixturevalue(fixture), source)
    (file,) = (path for path in source.iterdir() if path.suffix in ('.mcap', '.db3'))
    os.truncate(file, file.stat().st_size // 2)
    assert label(source, tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert f'{source}: cannot be read as a ROS 2 bag; is it complete?' in error
    assert not (tmp_path / 'out').exists()
