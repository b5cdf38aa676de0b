"""Pickled hand models: every honest way to write one is read, nothing that a pickle can do is done."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import sparse
from test_hand_model_files import small_hand

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.restricted_pickle import read_pickled_fields

PATH = Path('MANO_RIGHT.pkl')


def read(content: bytes, *keys: str) -> dict[str, Any]:
    return read_pickled_fields(content, PATH, keys)


# Honest pickles

ARRAYS = {
    'float64': np.arange(24.0).reshape(2, 3, 4),
    'float32': np.arange(6, dtype=np.float32).reshape(2, 3),
    'uint32': np.array([[2**32 - 1, 0], [0, 1]], np.uint32),
    'int64': np.arange(-3, 3),
    'int8': np.array([-128, 127], np.int8),
    'bool': np.array([True, False]),
    'fortran': np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    'big endian': np.arange(5, dtype='>f8'),
    'no axes': np.array(2.5),
}


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('name', ARRAYS)
def test_arrays_of_plain_numbers(name: str, protocol: int) -> None:
    got = read(pickle.dumps({'a': ARRAYS[name], 'text': 'lbs'}, protocol), 'a', 'text')
    np.testing.assert_array_equal(got['a'], ARRAYS[name], strict=True)
    assert got['text'] == 'lbs'


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_numbers_of_numpy_alone_and_in_lists(protocol: int) -> None:
    fields = {'one': np.float32(0.5), 'some': [np.int64(-3), 4, np.float64(2.5)]}
    got = read(pickle.dumps(fields, protocol), 'one', 'some')
    assert got == {'one': 0.5, 'some': [-3, 4, 2.5]}


def test_the_buffers_of_protocol_5_were_moved_too() -> None:
    content = pickle.dumps({'a': np.eye(2)}, 5)
    names = [b'\x8c' + bytes([len(name)]) + name for name in (b'numpy.core.numeric', b'numpy._core.numeric')]
    new, old = names if names[0] in content else reversed(names)
    np.testing.assert_array_equal(read(content.replace(new, old), 'a')['a'], np.eye(2))


def test_buffers_outside_of_the_file_are_refused() -> None:
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps({'a': np.eye(2)}, 5, buffer_callback=buffers.append)
    assert buffers
    with pytest.raises(FileFormatError, match='NEXT_BUFFER'):
        read(content, 'a')


@pytest.mark.parametrize('protocol', [0, 1])
def test_the_oldest_protocols_are_refused_with_the_remedy(protocol: int) -> None:
    with pytest.raises(FileFormatError, match=r'protocol 2 to 5; save it again with protocol=4'):
        read(pickle.dumps({'a': np.eye(2)}, protocol), 'a')


@pytest.mark.parametrize('protocol', [2, 5])
@pytest.mark.parametrize('name', ARRAYS)
def test_arrays_have_memory_of_their_own(name: str, protocol: int) -> None:
    array = read(pickle.dumps({'a': ARRAYS[name]}, protocol), 'a')['a']
    assert array.flags.owndata and array.flags.writeable


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_sparse_matrices(protocol: int) -> None:
    matrix = sparse.random(16, 30, 0.2, format='csc', random_state=0)
    content = pickle.dumps({'a': matrix}, protocol)
    np.testing.assert_array_equal(read(content, 'a')['a'], matrix.toarray())


@pytest.mark.parametrize(
    ('new', 'old'),
    [
        (b'numpy.core.multiarray', b'numpy._core.multiarray'),
        (b'scipy.sparse._csc', b'scipy.sparse.csc'),
    ],
)
def test_modules_that_were_moved(new: bytes, old: bytes) -> None:
    content = pickle.dumps({'a': sparse.eye(3, format='csc')}, 2)
    assert (new in content) != (old in content)
    swapped = content.replace(new, old) if new in content else content.replace(old, new)
    np.testing.assert_array_equal(read(swapped, 'a')['a'], np.eye(3))


def test_ordered_dicts_and_absent_keys() -> None:
    got = read(pickle.dumps(OrderedDict(a=np.eye(2), b=1), 2), 'a', 'c')
    assert list(got) == ['a']


class Python2Pickler(pickle._Pickler):
    """Writes texts and bytes as Python 2 does: both as byte strings."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        encoded = text.encode('latin-1') if isinstance(text, str) else text
        if len(encoded) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(encoded)]) + encoded)
        else:
            self.write(pickle.BINSTRING + struct.pack('<i', len(encoded)) + encoded)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


@pytest.fixture
def chumpy_classes(monkeypatch: pytest.MonkeyPatch) -> tuple[type, type]:
    """Classes of the names of chumpy's, that pickle as those do, with a state dict."""
    classes = []
    monkeypatch.setitem(sys.modules, 'chumpy', types.ModuleType('chumpy'))
    for module, name in (('chumpy.ch', 'Ch'), ('chumpy.reordering', 'Select')):
        cls = type(name, (), {'__module__': module, '__reduce__': state_by_newobj})
        fake = types.ModuleType(module)
        setattr(fake, name, cls)
        monkeypatch.setitem(sys.modules, module, fake)
        classes.append(cls)
    return classes[0], classes[1]


def state_by_newobj(instance: Any) -> tuple[Any, ...]:
    return copyreg.__newobj__, (type(instance),), dict(instance.__dict__)  # type: ignore[attr-defined]


def with_state(cls: type, **state: Any) -> Any:
    instance = cls()
    instance.__dict__.update(state, _dirty_vars={'x'}, _itr=None, _depends_on_deps={}, _status='new')
    return instance


def python2_pickle(value: Any) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def small_python2_hand(chumpy_classes: tuple[type, type]) -> bytes:
    """A hand of 21 vertices in the structure of MANO's files, as Python 2 wrote them."""
    ch, select = chumpy_classes
    fields: dict[str, Any] = dict(small_hand())
    everything = np.concatenate([fields['shapedirs'], np.full((21, 3, 10), 9.0)], axis=2)
    chosen = np.arange(everything.size).reshape(everything.shape)[:, :, :10]
    fields['shapedirs'] = with_state(
        select, a=with_state(ch, x=everything), idxs=chosen.ravel(), preferred_shape=chosen.shape
    )
    fields['v_template'] = with_state(ch, x=fields['v_template'])
    fields['J_regressor'] = sparse.csc_matrix(fields['J_regressor'])
    fields['bs_style'] = 'lbs'
    return python2_pickle(fields)


def test_a_hand_as_python_2_wrote_it(chumpy_classes: tuple[type, type], tmp_path: Path) -> None:
    content = small_python2_hand(chumpy_classes)
    names = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert 'SHORT_BINSTRING' in names and 'BINUNICODE' not in names
    path = tmp_path / 'MANO_RIGHT.pkl'
    path.write_bytes(content)
    model, expected = load_hand_model(path), small_hand()
    np.testing.assert_array_equal(model.v_template, expected['v_template'])
    np.testing.assert_array_equal(model.shapedirs, expected['shapedirs'])
    np.testing.assert_array_equal(model.joint_regressor, expected['J_regressor'])


# Hostile pickles


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there when something was executed."""
    return tmp_path / 'executed'


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def hostile_objects(marker: Path) -> dict[str, Any]:
    touch = f'touch {marker}'
    python = f'open({str(marker)!r}, "w").close()'
    harmful = Calls(os.system, touch)
    return {
        'os.system': harmful,
        'eval': Calls(eval, python),
        'exec': Calls(exec, python),
        'open': Calls(open, str(marker), 'w'),
        'getattr': Calls(getattr, Calls(__import__, 'os'), 'system'),
        'object array': np.array([harmful], dtype=object),
        'array field': np.array([(1, harmful)], dtype=[('a', int), ('b', object)]),
        'ordered dict': OrderedDict(a=harmful),
        'numpy.load': Calls(np.load, str(marker)),
        'within a tuple': (1, [2, {'a': harmful}]),
    }


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('name', hostile_objects(Path()))
def test_calls_are_refused_and_not_made(name: str, protocol: int, marker: Path) -> None:
    hostile = hostile_objects(marker)[name]
    for value in (hostile, {'a': hostile}, {'b': hostile, 'a': np.eye(2)}):
        with pytest.raises(FileFormatError, match='MANO_RIGHT.pkl: '):
            read(pickle.dumps(value, protocol), 'a')
    assert not marker.exists()


def test_the_refusal_names_the_function(marker: Path) -> None:
    with pytest.raises(FileFormatError, match=r'asks for posix\.system') as error:
        read(pickle.dumps(hostile_objects(marker)['os.system'], 2), 'a')
    assert 'MANO_RIGHT.pkl' in str(error.value)
    assert 'savez' in str(error.value)


def test_arrays_of_objects_are_refused_even_if_harmless() -> None:
    with pytest.raises(FileFormatError, match='Python objects'):
        read(pickle.dumps({'a': np.array([None, 1], dtype=object)}, 2), 'a')


def hand_written(marker: Path) -> dict[str, bytes]:
    touch = f'touch {marker}'.encode()
    text = b'U' + bytes([len(touch)]) + touch
    eval_of = f'open({str(marker)!r},"w")'.encode()
    return {
        'INST': b'\x80\x02(S"' + touch + b'"\nios\nsystem\n.',
        'OBJ': b'\x80\x02(cos\nsystem\n' + text + b'o.',
        'REDUCE': b'\x80\x02cos\nsystem\n' + text + b'\x85R.',
        'STACK_GLOBAL': b'\x80\x04\x8c\x02os\x8c\x06system\x93' + text + b'\x85R.',
        'NEWOBJ': b'\x80\x02csubprocess\nPopen\n' + text + b'\x85\x81.',
        'NEWOBJ_EX': b'\x80\x04csubprocess\nPopen\n' + text + b'\x85}\x92.',
        'dotted name': b'\x80\x04\x8c\x05numpy\x8c\x18ndarray.__class__.__base__\x93.',
        'other name of an admitted module': b'\x80\x02cnumpy\nfromfile\n' + text + b'\x85R.',
        'codec': b'\x80\x02c_codecs\ndecode\n' + text + b'U\x06rot_13\x86R.',
        'BUILD on a class': b'\x80\x02cnumpy\nndarray\n}U\x0c__setstate__c__builtin__\neval\nsb.',
        'BUILD on a dict': b'\x80\x02}}U\x01aK\x01sb.',
        'call of a call': b'\x80\x02cnumpy\nndarray\n)R' + text + b'\x85R.',
        'eval': b'\x80\x02c__builtin__\neval\nU' + bytes([len(eval_of)]) + eval_of + b'\x85R.',
        'name that is no text': b'\x80\x04K\x01K\x02\x93.',
        'EXT1': b'\x80\x02\x82\x01.',
        'EXT2': b'\x80\x02\x83\x01\x00.',
        'EXT4': b'\x80\x02\x84\x01\x00\x00\x00.',
        'PERSID': b'\x80\x02Pid\n.',
        'BINPERSID': b'\x80\x02NQ.',
        'NEXT_BUFFER': b'\x80\x05\x97.',
        'protocol of the future': b'\x80\x06}.',
        'BYTEARRAY8 of terabytes': b'\x80\x05\x96' + struct.pack('<Q', 2**42) + b'.',
        'BINBYTES of gigabytes': b'\x80\x03B' + struct.pack('<I', 2**32 - 1) + b'.',
        'memo of gigabytes': b'\x80\x02Nr\xff\xff\xff\xff.',
        'nothing in the memo': b'\x80\x02h\x07.',
        'empty stack': b'\x80\x02.',
        'no mark': b'\x80\x02u.',
        'append to a dict': b'\x80\x02}K\x01a.',
        'odd items': b'\x80\x02}(U\x01au.',
        'no end': b'\x80\x02}',
        'no pickle': b'\x00\xff\x17MANO',
        'a list': b'\x80\x02].',
        'lists without end': b'\x80\x02' + b']' * 300_000 + b'a' * 299_999 + b'.',
        'no data': b'',
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize('name', hand_written(Path()))
def test_hand_written_pickles_are_refused(name: str, marker: Path) -> None:
    with pytest.raises(FileFormatError, match='MANO_RIGHT.pkl: '):
        read(hand_written(marker)[name], 'a')
    assert not marker.exists()


@pytest.mark.timeout(20)
def test_keys_that_take_forever_to_hash_are_refused() -> None:
    doubled_tuples = b'\x80\x02}N' + b''.join(b'q\x01h\x01\x86' for _ in range(100)) + b'K\x01s.'
    with pytest.raises(FileFormatError, match='tuples for keys'):
        read(doubled_tuples, 'a')


def test_a_hostile_value_within_chumpy(chumpy_classes: tuple[type, type], marker: Path) -> None:
    ch, select = chumpy_classes
    harmful = Calls(os.system, f'touch {marker}')
    array = with_state(ch, x=np.eye(2))
    for value in (
        with_state(ch, x=harmful),
        with_state(ch, x=with_state(ch, x=np.eye(2))),
        with_state(ch, y=1),
        with_state(select, a=harmful, idxs=np.arange(2)),
        with_state(select, a=array, idxs=np.array([0, 99])),
        with_state(select, a=array, idxs=np.arange(2), preferred_shape=(3, 3)),
        with_state(select, a=array, idxs=np.arange(2), preferred_shape='many'),
    ):
        with pytest.raises(FileFormatError):
            read(python2_pickle({'a': value}), 'a')
    assert not marker.exists()


def test_a_selection_of_itself_is_refused(chumpy_classes: tuple[type, type]) -> None:
    _, select = chumpy_classes
    circle = with_state(select, idxs=np.arange(2))
    circle.a = circle
    with pytest.raises(FileFormatError):
        read(python2_pickle({'a': circle}), 'a')


@pytest.mark.parametrize(
    'state',
    [
        {'_shape': (10**9, 10**9)},
        {'_shape': (-1, 3)},
        {'_shape': (2, 3, 4)},
        {'_shape': (2, 3)},
        {'indices': np.array([0, 1, 7], np.int32)},
        {'indptr': np.array([0, -1, 2, 3], np.int32)},
        {'indices': np.array([0, 1, -1], np.int32)},
        {'indices': np.array([0.0, 1.0, 2.0])},
        {'indptr': np.array([0, 2, 1, 3], np.int32)},
        {'indptr': np.array([0, 2, 1, 3], np.uint32)},
        {'indptr': np.array([1, 2, 3, 4], np.int32)},
        {'indptr': np.array([0, 1, 3], np.int32)},
        {'indptr': np.array([0, 1, 2, 4], np.int32)},
        {'indptr': np.array([], np.int32)},
        {'data': np.ones(2)},
        {'data': np.ones(1)},
        {'data': np.ones((3, 3))},
    ],
)
def test_impossible_sparse_matrices_are_refused(state: dict[str, Any]) -> None:
    matrix = sparse.eye(3, format='csc')
    matrix.__dict__.update(state)
    with pytest.raises(FileFormatError):
        read(pickle.dumps({'a': matrix}, 2), 'a')


@pytest.mark.parametrize(
    'state',
    [
        {'_shape': (1, 1), 'indptr': np.array([0, 10**8]), 'indices': np.array([0]), 'data': np.ones(1)},
        {'_shape': (0, 10**8), 'indptr': np.array([0]), 'indices': np.arange(0), 'data': np.ones(0)},
    ],
)
def test_small_sparse_matrices_do_not_take_all_memory(state: dict[str, Any]) -> None:
    matrix = sparse.eye(3, format='csc')
    matrix.__dict__.update(state)
    content = pickle.dumps({'a': matrix}, 4)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=r'MANO_RIGHT.pkl: .*\(a sparse matrix'):
            read(content, 'a')
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_damaged_pickles_are_refused_and_nothing_else(
    chumpy_classes: tuple[type, type], tmp_path: Path
) -> None:
    content = small_python2_hand(chumpy_classes)
    structure = np.array([position for _, _, position in pickletools.genops(content)])
    path = tmp_path / 'hand.pkl'
    rng = np.random.default_rng(0)
    refused = 0
    for attempt in range(800):
        damaged = bytearray(content)
        if attempt % 8 == 0:
            del damaged[rng.choice(structure) :]
        else:
            for position in rng.choice(structure, size=rng.integers(1, 4)) + rng.integers(0, 4):
                damaged[min(position, len(damaged) - 1)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_hand_model(path)
        except FileFormatError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 400
