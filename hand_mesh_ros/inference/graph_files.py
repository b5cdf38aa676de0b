"""Where the exported graphs of a network lie, and what they say of themselves."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
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
    return {entry.key: entry.value for entry in _parsed(path).metadata_props}


def require_files_beside(path: Path) -> None:
    """Refuse a graph that wants weights from files anywhere but in its own folder.

    A graph may name any file as that of its weights, and ONNX Runtime reads what it names.

    :raises FileFormatError: there is such a graph, or it cannot be read as one.
    """
    for location in _locations(_parsed(path)):
        if location in ('', '.', '..') or Path(location).name != location:
            raise FileFormatError(
                f'{path}: wants weights from {location!r}, which is not in its own folder: hand-mesh export '
                'writes no such graph'
            )


def _locations(message: Message) -> Iterator[str]:
    """Of all files that a graph wants tensors from."""
    if message.DESCRIPTOR.name == 'Tensor':
        entries = message.external_data
        yield from (os.fsdecode(entry.value) for entry in entries if entry.key == 'location')
    for field, values in message.ListFields():
        for value in values if field.message_type else ():
            yield from _locations(value)


def _parsed(path: Path) -> Any:
    model = _model_message()()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise FileFormatError(
            f'{path}: cannot be read as an ONNX file: make it anew with hand-mesh export ({error})'
        ) from error
    return model


#: Of onnx.proto what is sought, and the way there: messages, their fields, the number and kind of each.
_MESSAGES = {
    'Entry': {'key': (1, 'text'), 'value': (2, 'text')},
    'Tensor': {'external_data': (13, 'Entry')},
    'SparseTensor': {'values': (1, 'Tensor'), 'indices': (2, 'Tensor')},
    'Attribute': {
        't': (5, 'Tensor'),
        'g': (6, 'Graph'),
        'tensors': (10, 'Tensor'),
        'graphs': (11, 'Graph'),
        'sparse_tensor': (22, 'SparseTensor'),
        'sparse_tensors': (23, 'SparseTensor'),
    },
    'Node': {'attribute': (5, 'Attribute')},
    'Graph': {'node': (1, 'Node'), 'initializer': (5, 'Tensor'), 'sparse_initializer': (15, 'SparseTensor')},
    'Function': {'node': (7, 'Node'), 'attribute_proto': (11, 'Attribute')},
    'Model': {'graph': (7, 'Graph'), 'metadata_props': (14, 'Entry'), 'functions': (25, 'Function')},
}


@functools.cache
def _model_message() -> type[Message]:
    """Of ``_MESSAGES``."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name='hand_mesh_ros/graph.proto', package='hand_mesh_ros')
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            if kind == 'text':
                message.field.add(
                    name=field, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL
                )
            else:  # what comes once is read as what may come more often
                message.field.add(
                    name=field,
                    number=number,
                    type=kinds.TYPE_MESSAGE,
                    type_name=f'.hand_mesh_ros.{kind}',
                    label=kinds.LABEL_REPEATED,
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
    except (KeyError, TypeError, ValueError, RecursionError) as error:
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
