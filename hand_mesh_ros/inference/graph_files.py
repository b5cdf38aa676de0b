"""Where the exported graphs of a network lie, and what they say of themselves."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from hand_mesh_ros.errors import FileFormatError

#: Key of the metadata of a graph: a JSON object, the description in its file of weights and more.
METADATA_KEY = 'hand_mesh_ros'

#: What a description says, besides, of the file of weights.
WEIGHTS_HASH = 'weights_sha256'


def maskhand_graphs(weights: Path, steps: int) -> tuple[Path, Path]:
    """Encoder and decoder, of that many iterations, beside their file of weights."""
    return weights.with_suffix('.encoder.onnx'), weights.with_suffix(f'.decoder-t{steps}.onnx')


def single_graph(weights: Path) -> tuple[Path]:
    """The graph of any other network, beside its file of weights."""
    return (weights.with_suffix('.onnx'),)


def embedded_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, by key. Neither ONNX nor an engine is needed.

    :raises FileFormatError: the file cannot be read, or is no ONNX file, or not a whole one.
    """
    model = _metadata_message()()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise FileFormatError(
            f'{path}: cannot be read as an ONNX file: make it anew with hand-mesh export ({error})'
        ) from error
    return {entry.key: entry.value for entry in model.metadata_props}


@functools.cache
def _metadata_message() -> type[Message]:
    """Of onnx.proto's ModelProto only what is sought: field 14 and its StringStringEntryProto."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name='hand_mesh_ros/metadata.proto', package='hand_mesh_ros')
    entry = file.message_type.add(name='Entry')
    for number, name in ((1, 'key'), (2, 'value')):
        entry.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    file.message_type.add(name='Model').field.add(
        name='metadata_props',
        number=14,
        type=field.TYPE_MESSAGE,
        type_name='.hand_mesh_ros.Entry',
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName('hand_mesh_ros.Model'))


def checked_description(path: Path, metadata: Mapping[str, str], weights: Path) -> dict[str, Any]:
    """What the graph in ``path`` says of itself.

    :param metadata: of the graph.
    :param weights: the file that holds its weights.
    :raises FileFormatError: no graph of this package, or of other weights than those.
    """
    try:
        description = json.loads(metadata[METADATA_KEY])
        expected = description[WEIGHTS_HASH]
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f'{path}: no graph that hand-mesh export wrote') from error
    if expected != sha256_of(weights):
        raise FileFormatError(
            f'{path} was made of other weights than {weights} holds: make it anew with '
            f'hand-mesh export --weights {weights}'
        )
    return description


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    :raises FileFormatError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open('rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise FileFormatError(f'{path}: cannot be read: {error}') from error
    return digest.hexdigest()
