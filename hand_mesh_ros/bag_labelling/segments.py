"""A bag in the making: finished pieces of it in a folder beside it, joined at the end.

``OUT.partial/`` holds ``job.json``, what is being done, and a folder for each finished segment: a bag of its
own, with ``segment.json`` and, on request, ``hands.jsonl``. A segment appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from hand_mesh_ros.bag_labelling.messages import HANDS_TYPE, INFO_TYPE
from hand_mesh_ros.bag_labelling.reading import messages_of, opened_bag
from hand_mesh_ros.errors import ConfigurationError, FileFormatError

RECORDS_NAME = 'hands.jsonl'


class PartialBag:
    """The folder ``OUT.partial``."""

    def __init__(self, out: Path, typestore: Any, namespace: str) -> None:
        """Of the bag ``out`` with topics below ``namespace``; touches nothing yet."""
        self.out, self._typestore = out, typestore
        self.folder = out.parent / f'{out.name}.partial'
        node = f'/{namespace.strip("/")}/hand_mesh'.replace('//', '/')
        self.hands_topic, self.info_topic = f'{node}/hands', f'{node}/info'

    @contextmanager
    def begun(self, job: dict[str, Any], restart: bool) -> Iterator[None]:
        """Begin the job, or, without ``restart``, go on with the same; nobody else can meanwhile.

        :raises ConfigurationError: the folder is of another job, or another process works at it.
        """
        job = json.loads(json.dumps(job))
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / 'lock', 'w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(f'{self.folder}: another process is at work there') from None
            file = self.folder / 'job.json'
            if restart:
                self._empty()
            if file.exists():
                self._check_same(job, _read_json(file))
            else:
                _write_whole(file, json.dumps(job))
            yield

    def finished(self) -> int:
        """How many segments are finished: those numbered 0, 1, ... without a gap."""
        number = 0
        while (self._segment(number) / 'segment.json').is_file():
            number += 1
        return number

    def state(self, number: int) -> dict[str, Any]:
        """What was written of a finished segment beside its messages."""
        return _read_json(self._segment(number) / 'segment.json')

    @contextmanager
    def segment(self, number: int) -> Iterator[SegmentWriter]:
        """Write a segment; it is there when this is left without an error, and not before."""
        scratch = self.folder / 'unfinished'
        shutil.rmtree(scratch, ignore_errors=True)
        path = scratch / self._segment(number).name
        with _bag_writer(path) as writer, open(path / RECORDS_NAME, 'w', encoding='utf-8') as records:
            segment = SegmentWriter(writer, self._add_hands(writer), self._add_info(writer), records)
            yield segment
        (path / 'segment.json').write_text(json.dumps(segment.state), encoding='utf-8')
        os.rename(path, self._segment(number))

    def check_copy(self, source: Path, reader: Any) -> None:
        """Whether all messages of a bag can be copied.

        :raises ConfigurationError: one of its topics is one of those written, or of an unknown type.
        """
        for connection in reader.connections:
            if connection.topic in (self.hands_topic, self.info_topic):
                raise ConfigurationError(
                    f'{source}: has a topic {connection.topic} already; choose another --namespace'
                )
            self._definition(source, connection)

    def join(self, count: int, source: Path | None, jsonl: Path | None, run: dict[str, Any]) -> None:
        """Make the bag of ``count`` segments, and remove them.

        :param source: a bag all of whose messages are to be in it too.
        :param jsonl: where the records go, if they were written; ``run`` beside it, as ``run.json``.
        """
        joined = self.folder / 'joined' / self.out.name
        shutil.rmtree(joined.parent, ignore_errors=True)
        with _bag_writer(joined) as writer:
            own = {self.hands_topic: self._add_hands(writer), self.info_topic: self._add_info(writer)}
            messages = self._messages(count, own)
            if source is None:
                _write_all(writer, messages)
            else:
                with opened_bag(source) as reader:
                    copied = self._copied(source, reader, writer)
                    _write_all(writer, heapq.merge(copied, messages, key=lambda message: message[1]))
        if jsonl is not None:
            jsonl.parent.mkdir(parents=True, exist_ok=True)
            records = self.folder / 'joined' / RECORDS_NAME
            with open(records, 'wb') as whole:
                for number in range(count):
                    whole.write((self._segment(number) / RECORDS_NAME).read_bytes())
            shutil.move(records, jsonl)
            _write_whole(jsonl.with_name('run.json'), json.dumps(run) + '\n')
        os.rename(joined, self.out)
        self.remove()

    def _empty(self) -> None:
        """Forget the job; the description of it goes last."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        (self.folder / 'job.json').unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, if it is one of ours."""
        if (self.folder / 'job.json').is_file():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _segment(self, number: int) -> Path:
        return self.folder / f'{number:06d}'

    def _check_same(self, job: dict[str, Any], begun: dict[str, Any]) -> None:
        names = sorted(job.keys() | begun.keys())
        other = [name for name in names if job.get(name) != begun.get(name)]
        if other:
            what = ', '.join(f'{name} {begun.get(name)}, not {job.get(name)}' for name in other)
            raise ConfigurationError(
                f'{self.folder}: was begun otherwise ({what}); go on with the same, or give --restart'
            )

    def _add_hands(self, writer: Any) -> Any:
        return writer.add_connection(self.hands_topic, HANDS_TYPE, typestore=self._typestore)

    def _add_info(self, writer: Any) -> Any:
        return writer.add_connection(
            self.info_topic, INFO_TYPE, typestore=self._typestore, offered_qos_profiles=[_latched()]
        )

    def _messages(self, count: int, own: dict[str, Any]) -> Iterator[tuple[Any, int, bytes]]:
        for number in range(count):
            with opened_bag(self._segment(number)) as reader:
                for connection, time_ns, data in messages_of(self._segment(number), reader):
                    yield own[connection.topic], time_ns, data

    def _copied(self, source: Path, reader: Any, writer: Any) -> Iterator[tuple[Any, int, bytes]]:
        """All messages of a bag, of connections that are added to ``writer``."""
        copies: dict[int, Any] = {}
        for connection in reader.connections:
            definition, digest = self._definition(source, connection)
            copies[connection.id] = writer.add_connection(
                connection.topic,
                connection.msgtype,
                msgdef=definition,
                rihs01=digest,
                serialization_format=connection.ext.serialization_format,
                offered_qos_profiles=connection.ext.offered_qos_profiles,
            )
        messages = messages_of(source, reader)
        return ((copies[connection.id], time_ns, data) for connection, time_ns, data in messages)

    def _definition(self, source: Path, connection: Any) -> tuple[str, str]:
        """Definition and hash of a type: of the bag, else, as older bags have none, of ROS."""
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

        text, kind = connection.msgdef.data, connection.msgtype
        if text and connection.digest:
            return text, connection.digest
        store = self._typestore
        if text:
            store = get_typestore(Stores.EMPTY)
            is_idl = connection.msgdef.format.name == 'IDL'
            try:
                store.register(get_types_from_idl(text) if is_idl else get_types_from_msg(text, kind))
            except Exception as error:  # whatever a parser makes of a definition that is none
                raise ConfigurationError(
                    f'{source}: its definition of {kind} cannot be read, so that {connection.topic} cannot '
                    f'be copied: {error}'
                ) from error
        if kind not in store.types:
            raise ConfigurationError(
                f'{source}: does not say what {kind} of {connection.topic} is, and ROS has no such type: '
                'it cannot be copied'
            )
        return text or store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)


class SegmentWriter:
    """What goes into one segment."""

    def __init__(self, writer: Any, hands: Any, info: Any, records: TextIO) -> None:
        self._writer, self._hands, self._info = writer, hands, info
        self.records = records  #: lines of hands.jsonl
        self.state: dict[str, Any] = {}  #: what is to be kept beside the messages

    def write_hands(self, time_ns: int, message: bytes) -> None:
        """Write the hands of a picture, at its time in the bag."""
        self._writer.write(self._hands, time_ns, message)

    def write_info(self, time_ns: int, message: bytes) -> None:
        """Write the HandModelInfo."""
        self._writer.write(self._info, time_ns, message)


def _bag_writer(path: Path) -> Any:
    from rosbags.rosbag2 import StoragePlugin, Writer

    # Version 8 is the newest that Humble's rosbag2 reads, too.
    return Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)


def _write_all(writer: Any, messages: Iterator[tuple[Any, int, bytes]]) -> None:
    for connection, time_ns, data in messages:
        writer.write(connection, time_ns, data)


def _latched() -> Any:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )


def _write_whole(path: Path, text: str) -> None:
    scratch = path.with_name(f'{path.name}.tmp')
    scratch.write_text(text, encoding='utf-8')
    os.replace(scratch, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise FileFormatError(f'{path}: cannot be read ({error}); give --restart') from error
    if not isinstance(value, dict):
        raise FileFormatError(f'{path}: is no JSON object; give --restart')
    return value
