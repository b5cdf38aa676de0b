"""Pictures of a bag with what belongs to them: depth, mask and calibration of the same stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hand_mesh_ros.bag_labelling.decoding import header_of
from hand_mesh_ros.errors import ConfigurationError, FileFormatError

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'

#: How far apart in the bag a picture and what belongs to it may be, and how many pictures may wait for it.
_WINDOW_NS = 500_000_000
_MAX_WAITING = 60


@dataclass(frozen=True)
class TopicNames:
    """Which topics a user names; None for what is found by its type."""

    image: str | None = None
    camera_info: str | None = None
    depth: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class Topics:
    """Which topics of a bag are read, by full name."""

    picture: str  #: the one of which every message is answered
    picture_kind: str  #: image, mask or depth
    companions: dict[str, str] = field(default_factory=dict)  #: kind -> topic: camera_info, depth, mask


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One picture and what belongs to it, as serialized in the bag."""

    index: int  #: 0, 1, ... in the bag
    time_ns: int  #: of its record in the bag
    kind: str  #: type of its message
    data: bytes
    companions: dict[str, bytes]  #: kind -> message: camera_info, depth, mask


@contextmanager
def opened_bag(bag: Path) -> Iterator[Any]:
    """A ``rosbags`` reader of a bag: its folder, or one .mcap or .db3 file.

    :raises ConfigurationError: no such bag; ``rosbags`` is not installed.
    :raises FileFormatError: a damaged bag.
    """
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise ConfigurationError(f'bags need rosbags: pip install "hand-mesh-ros[ros]" ({error})') from error
    if not bag.exists():
        raise ConfigurationError(f'{bag}: no such bag')
    with ExitStack() as stack:
        with _told_if_damaged(bag):
            reader = stack.enter_context(Reader(bag))
        yield reader


def messages_of(bag: Path, reader: Any, connections: Sequence[Any] = ()) -> Iterator[tuple[Any, int, bytes]]:
    """Connection, time in nanoseconds and content of the messages of some connections; of all, if none.

    :raises FileFormatError: a damaged bag.
    """
    messages = reader.messages(connections)
    while True:
        with _told_if_damaged(bag):
            message = next(messages, None)
        if message is None:
            return
        yield message


@contextmanager
def _told_if_damaged(bag: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of a damaged bag each storage has its own kinds
        raise FileFormatError(
            f'{bag}: cannot be read as a ROS 2 bag; is it complete? ({type(error).__name__}: {error})'
        ) from error


def choose_topics(bag: Path, reader: Any, names: TopicNames, of_masks: bool) -> Topics:
    """Which topics to read.

    :param of_masks: the method looks at masks or depth, not at images.
    :raises ConfigurationError: a topic that is not there, or is of another type, or several that could be.
    """
    types = {connection.topic: connection.msgtype for connection in reader.connections}
    companions = {}
    for kind, name in (('depth', names.depth), ('mask', names.mask)):
        if name is not None:
            companions[kind] = _named(bag, name, types, (IMAGE,))
    if of_masks:
        if not companions:
            raise ConfigurationError(f'{bag}: the method needs --mask-topic or --depth-topic')
        kind = 'mask' if 'mask' in companions else 'depth'
        picture = companions.pop(kind)
    else:
        kind, picture = 'image', _image_topic(bag, names.image, types, set(companions.values()))
    info = _info_topic(bag, names.camera_info, types, picture)
    if info is not None:
        companions['camera_info'] = info
    return Topics(picture, kind, companions)


def count_pictures(reader: Any, topics: Topics) -> int:
    """How many pictures the bag says that it has."""
    return sum(connection.msgcount for connection in _connections(reader, topics.picture))


def raw_frames(bag: Path, reader: Any, topics: Topics) -> Iterator[RawFrame]:
    """All pictures of a bag in the order in which they were recorded.

    Depth and masks are those of the same stamp; calibration too, else the last before it, else the first.

    :raises FileFormatError: a damaged bag.
    """
    kind_of = {topic: kind for kind, topic in topics.companions.items()}
    wanted = [c for topic in (topics.picture, *kind_of) for c in _connections(reader, topic)]
    pairing = _Pairing(set(kind_of.values()), _first(bag, reader, topics.companions.get('camera_info')))
    for connection, time_ns, data in messages_of(bag, reader, wanted):
        if connection.topic == topics.picture:
            yield from pairing.add_picture(time_ns, connection.msgtype, bytes(data))
        else:
            yield from pairing.add_companion(time_ns, kind_of[connection.topic], bytes(data))
    yield from pairing.rest()


class _Pairing:
    """Pictures that wait for what belongs to them, and the other way round."""

    def __init__(self, kinds: set[str], first_info: bytes | None) -> None:
        self._kinds = kinds
        self._info = first_info
        self._count = 0
        self._waiting: deque[tuple[int, str, bytes]] = deque()  #: pictures: time, type, message
        self._companions: dict[str, deque[tuple[int, object, bytes]]] = {kind: deque() for kind in kinds}

    def add_picture(self, time_ns: int, msgtype: str, data: bytes) -> Iterator[RawFrame]:
        self._waiting.append((time_ns, msgtype, data))
        yield from self._ready(time_ns)

    def add_companion(self, time_ns: int, kind: str, data: bytes) -> Iterator[RawFrame]:
        header = header_of(data)
        self._companions[kind].append((time_ns, header and header.stamp, data))
        yield from self._ready(time_ns)

    def rest(self) -> Iterator[RawFrame]:
        while self._waiting:
            yield self._frame()

    def _ready(self, now_ns: int) -> Iterator[RawFrame]:
        while self._waiting:
            time_ns, _, data = self._waiting[0]
            is_late = now_ns - time_ns > _WINDOW_NS or len(self._waiting) > _MAX_WAITING
            if not is_late and self._of_stamp(data).keys() != self._kinds:
                return
            yield self._frame()

    def _frame(self) -> RawFrame:
        time_ns, msgtype, data = self._waiting.popleft()
        companions = self._of_stamp(data)
        for came_ns, _, info in self._companions.get('camera_info', ()):
            if came_ns <= time_ns:
                self._info = info
        if self._info is not None:
            companions.setdefault('camera_info', self._info)
        for waiting in self._companions.values():
            while waiting and waiting[0][0] < time_ns - 2 * _WINDOW_NS:
                waiting.popleft()
        frame = RawFrame(self._count, time_ns, msgtype, data, companions)
        self._count += 1
        return frame

    def _of_stamp(self, data: bytes) -> dict[str, bytes]:
        header = header_of(data)
        if header is None:
            return {}
        return {
            kind: message
            for kind, waiting in self._companions.items()
            for _, stamp, message in waiting
            if stamp == header.stamp
        }


def _connections(reader: Any, topic: str) -> list[Any]:
    return [connection for connection in reader.connections if connection.topic == topic]


def _first(bag: Path, reader: Any, topic: str | None) -> bytes | None:
    """The first message of a topic."""
    wanted = [] if topic is None else _connections(reader, topic)
    if not wanted:
        return None
    first = next(messages_of(bag, reader, wanted), None)
    return None if first is None else bytes(first[2])


def _named(bag: Path, name: str, types: dict[str, str], kinds: tuple[str, ...]) -> str:
    fitting = sorted(topic for topic, kind in types.items() if kind in kinds)
    found = [topic for topic in fitting if topic.lstrip('/') == name.lstrip('/')]
    if not found:
        raise ConfigurationError(
            f'{bag}: has no topic {name} of {" or ".join(kinds)}; there are {", ".join(fitting) or "none"}'
        )
    return found[0]


def _image_topic(bag: Path, name: str | None, types: dict[str, str], others: set[str]) -> str:
    if name is not None:
        return _named(bag, name, types, (IMAGE, COMPRESSED))
    images = sorted(
        topic
        for topic, kind in types.items()
        if kind in (IMAGE, COMPRESSED) and topic not in others and not topic.endswith('/compressedDepth')
    )
    if not images:
        raise ConfigurationError(
            f'{bag}: has no images; its topics are {", ".join(sorted(types)) or "none at all"}'
        )
    if len(images) > 1:
        raise ConfigurationError(
            f'{bag}: has several topics of images, choose with --image-topic: {", ".join(images)}'
        )
    return images[0]


def _info_topic(bag: Path, name: str | None, types: dict[str, str], picture: str) -> str | None:
    """The calibration of a picture's topic: named, or beside it, or the only one."""
    if name is not None:
        return _named(bag, name, types, (CAMERA_INFO,))
    infos = sorted(topic for topic, kind in types.items() if kind == CAMERA_INFO)
    base = picture.removesuffix('/compressed').rpartition('/')[0]
    if f'{base}/camera_info' in infos:
        return f'{base}/camera_info'
    if len(infos) > 1:
        raise ConfigurationError(
            f'{bag}: has several topics of CameraInfo, choose with --camera-info-topic: {", ".join(infos)}'
        )
    return infos[0] if infos else None
