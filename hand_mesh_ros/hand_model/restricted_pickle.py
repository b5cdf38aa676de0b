"""Reads the arrays out of a pickled dict, as MANO is published, without unpickling it.

Python's unpickler calls whatever a file tells it to. Here the file's operations are read with
``pickletools`` and only recorded: a name becomes a :class:`_Name`, a call an :class:`_Object` that
is never made, and the few kinds of object that MANO's files hold are worked out from their recorded
parts: numpy arrays, numbers, chumpy's ``Ch`` (an array) and ``Select`` (elements picked from a ``Ch``), and
scipy's sparse ``csc_matrix``. Neither chumpy nor scipy is needed. A file that names anything else is
refused.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.errors import FileFormatError

#: MANO's files take some hundred operations; many more would only take time.
_MAX_OPERATIONS = 100_000

#: Elements of the largest dense array that a sparse matrix may stand for.
_MAX_DENSE_ELEMENTS = 2**22

#: Operations that push a constant, and those that push the literal they carry.
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_LITERALS = (
    *('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'),
    *('BINSTRING', 'SHORT_BINSTRING', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES', 'SHORT_BINBYTES'),
    'BYTEARRAY8',
)

#: Protocols 0 and 1 take other operations; MANO's files are of protocol 2.
_PROTOCOLS = range(2, 6)

_ARRAY_TYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


@dataclass(frozen=True)
class _Name:
    """A class or function that the file names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f'{self.module}.{self.name}'


@dataclass(eq=False)
class _Object:
    """What calling ``kind`` would have made, and the state that it would have been given."""

    kind: _Name
    arguments: tuple[Any, ...]
    state: Any = None


_NDARRAY = _Name('numpy', 'ndarray')
_DTYPE = _Name('numpy', 'dtype')
_ENCODE = _Name('_codecs', 'encode')
_CH = _Name('chumpy.ch', 'Ch')
_SELECT = _Name('chumpy.reordering', 'Select')
_ORDERED_DICT = _Name('collections', 'OrderedDict')

# One thing goes by several names: modules were moved between versions of numpy, scipy and Python.
_RECONSTRUCT = (
    _Name('numpy.core.multiarray', '_reconstruct'),
    _Name('numpy._core.multiarray', '_reconstruct'),
)
_FROM_BUFFER = (_Name('numpy.core.numeric', '_frombuffer'), _Name('numpy._core.numeric', '_frombuffer'))
_SCALAR = (_Name('numpy.core.multiarray', 'scalar'), _Name('numpy._core.multiarray', 'scalar'))
_CSC_MATRIX = (_Name('scipy.sparse.csc', 'csc_matrix'), _Name('scipy.sparse._csc', 'csc_matrix'))
_SET = (_Name('__builtin__', 'set'), _Name('builtins', 'set'))

_ADMITTED = {
    *(_NDARRAY, _DTYPE, _ENCODE, _CH, _SELECT, _ORDERED_DICT),
    *(*_RECONSTRUCT, *_FROM_BUFFER, *_SCALAR, *_CSC_MATRIX, *_SET),
}


class _RefusedError(ValueError):
    """The pickle holds what no hand model holds."""


def read_pickled_fields(content: bytes, path: Path, keys: Collection[str]) -> dict[str, Any]:
    """The values of ``keys``, as far as they are there, of the dict pickled in ``content``.

    Numeric arrays come as numpy arrays, whatever held them. Raises FileFormatError, naming ``path``,
    for a damaged pickle and for one that holds anything else than the objects of a hand model.
    """
    try:
        fields = _PickleReader().read(content)
        if not isinstance(fields, dict):
            raise _RefusedError('the file holds no dict of arrays')
        return {key: _value(fields[key]) for key in keys if key in fields}
    # A damaged or hostile file can make any step raise nearly anything.
    except Exception as error:
        raise FileFormatError(
            f'{path}: not a readable hand model pickle ({error}); give the original MANO_RIGHT.pkl or '
            'MANO_LEFT.pkl, or save the arrays with numpy.savez as .npz'
        ) from error


class _PickleReader:
    """The pickle machine, cut down to data: a stack, a memo, and no calls.

    The operations are those of protocols 2 to 5, as Python's picklers write them with all buffers in the
    file; ``pickletools`` says what each one does.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > _MAX_OPERATIONS:
                raise _RefusedError(f'it takes more than {_MAX_OPERATIONS} operations')
            if count == 0 and (opcode.name != 'PROTO' or argument not in _PROTOCOLS):
                raise _RefusedError('it is not of pickle protocol 2 to 5; save it again with protocol=4')
            self._do(opcode.name, argument)
        return self._stack.pop()

    def _do(self, operation: str, argument: Any) -> None:
        if operation in _CONSTANTS:
            self._stack.append(_CONSTANTS[operation])
            return
        if operation in _LITERALS:
            self._stack.append(argument)
            return
        match operation:
            case 'PROTO' | 'FRAME' | 'STOP':
                pass
            case 'BINPUT' | 'LONG_BINPUT':
                self._memo[argument] = self._stack[-1]
            case 'MEMOIZE':
                self._memo[len(self._memo)] = self._stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                self._stack.append(self._memo[argument])
            case 'GLOBAL':
                self._stack.append(_admitted(*argument.split(' ')))
            case 'STACK_GLOBAL':
                module, name = self._pop(2)
                self._stack.append(_admitted(module, name))
            case 'REDUCE' | 'NEWOBJ':
                self._stack.append(_recorded_call(*self._pop(2)))
            case 'BUILD':
                target, state = self._pop(2)
                if not isinstance(target, _Object):
                    raise _RefusedError('it sets the state of something that is no object')
                target.state = state
                self._stack.append(target)
            case _:
                self._collect(operation)

    def _collect(self, operation: str) -> None:
        """The operations that make and fill lists, tuples, dicts and sets."""
        match operation:
            case 'MARK':
                self._outer_stacks.append(self._stack)
                self._stack = []
            case 'EMPTY_LIST' | 'EMPTY_SET':
                self._stack.append([])
            case 'EMPTY_TUPLE':
                self._stack.append(())
            case 'EMPTY_DICT':
                self._stack.append({})
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                self._stack.append(tuple(self._pop(int(operation[-1]))))
            case 'TUPLE':
                items = tuple(self._pop_to_mark())
                self._stack.append(items)
            case 'APPEND':
                self._extend(self._pop(1))
            case 'APPENDS' | 'ADDITEMS':
                self._extend(self._pop_to_mark())
            case 'SETITEM':
                self._set_items(self._pop(2))
            case 'SETITEMS':
                self._set_items(self._pop_to_mark())
            case _:
                raise _RefusedError(f'operation {operation} is in no hand model')

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise _RefusedError('it takes more off its stack than is there')
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer_stacks.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _RefusedError('it appends to something that is no list')
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        keys = items[::2]
        # Hashing a tuple of tuples of tuples, each there twice, takes forever.
        if not isinstance(target, dict) or any(isinstance(key, tuple) for key in keys):
            raise _RefusedError('it holds a dict with tuples for keys')
        target.update(zip(keys, items[1::2], strict=True))


def _admitted(module: Any, name: Any) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise _RefusedError('it asks for something that has no name')
    named = _Name(module, name)
    if named not in _ADMITTED:
        raise _RefusedError(f'it asks for {named}, which no hand model needs; nothing was executed')
    return named


def _recorded_call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise _RefusedError('it calls something that has no name')
    if function == _ORDERED_DICT and not arguments:
        return {}
    return _Object(function, arguments)


def _value(recorded: Any) -> Any:
    """The array or number that a recorded object, or each in a list, stands for; all else as it is."""
    if isinstance(recorded, list):
        return [_scalar(item) if isinstance(item, _Object) else item for item in recorded]
    if not isinstance(recorded, _Object):
        return recorded
    if recorded.kind in _SCALAR:
        return _scalar(recorded)
    if recorded.kind == _CH:
        return _array(recorded.state['x'])
    if recorded.kind == _SELECT:
        return _selection(recorded.state)
    if recorded.kind in _CSC_MATRIX:
        return _dense(recorded.state)
    return _array(recorded)


def _array(recorded: Any) -> np.ndarray:
    """A numpy array, its memory its own, from what ``ndarray.__reduce_ex__`` wrote."""
    if isinstance(recorded, _Object) and recorded.kind in _RECONSTRUCT:
        _, shape, element_type, is_fortran, elements = recorded.state
    elif isinstance(recorded, _Object) and recorded.kind in _FROM_BUFFER:
        elements, element_type, shape, order = recorded.arguments
        is_fortran = order == 'F'
    else:
        raise _RefusedError('a field holds something else than an array')
    dtype = _dtype(element_type)
    return np.frombuffer(_bytes(elements), dtype).reshape(shape, order='F' if is_fortran else 'C').copy()


def _scalar(recorded: _Object) -> Any:
    """A number of numpy's, as Python's own."""
    if recorded.kind not in _SCALAR:
        raise _RefusedError('a list holds something else than plain numbers')
    element_type, element = recorded.arguments
    return np.frombuffer(_bytes(element), _dtype(element_type)).item()


def _dtype(recorded: Any) -> np.dtype:
    if not isinstance(recorded, _Object) or recorded.kind != _DTYPE:
        raise _RefusedError('an array has no element type')
    element_type, byte_order = recorded.arguments[0], recorded.state[1]
    if element_type not in _ARRAY_TYPES or byte_order not in ('<', '>', '|', '='):
        raise _RefusedError('an array holds something else than plain numbers, such as Python objects')
    return np.dtype(byte_order + element_type)


def _bytes(recorded: Any) -> bytes:
    """Bytes, which Python 2 wrote as a string, and Python 3 in protocol 2 as an encoded text."""
    if isinstance(recorded, _Object) and recorded.kind == _ENCODE:
        recorded = recorded.arguments[0]
    return recorded.encode('latin-1') if isinstance(recorded, str) else bytes(memoryview(recorded))


def _selection(state: dict[str, Any]) -> np.ndarray:
    """What chumpy's ``Select`` computes."""
    source = state['a']
    if not isinstance(source, _Object) or source.kind != _CH:
        raise _RefusedError('a selection is made from something else than an array')
    selected = _array(source.state['x']).ravel()[_array(state['idxs'])]
    return selected.reshape(state['preferred_shape']) if 'preferred_shape' in state else selected


def _dense(state: dict[str, Any]) -> np.ndarray:
    """A matrix from scipy's compressed sparse columns.

    Everything is checked first: what is made takes as much memory as the shape and ``indptr`` ask for.
    """
    shape = tuple(int(length) for length in state['_shape'])
    if len(shape) != 2 or min(shape) < 1 or math.prod(shape) > _MAX_DENSE_ELEMENTS:
        raise _RefusedError(f'a sparse matrix has shape {shape}')
    ends, rows, values = (_array(state[key]) for key in ('indptr', 'indices', 'data'))
    if ends.dtype.kind not in 'iu' or rows.dtype.kind not in 'iu':
        raise _RefusedError('a sparse matrix has places that are not whole numbers')
    if ends.shape != (shape[1] + 1,) or ends[0] != 0 or (ends[1:] < ends[:-1]).any():
        raise _RefusedError('the columns of a sparse matrix do not follow each other')
    if rows.shape != (ends[-1],) or values.shape != (ends[-1],):
        raise _RefusedError('a sparse matrix has not as many elements as it says')
    if rows.size and not 0 <= rows.min() <= rows.max() < shape[0]:
        raise _RefusedError('a sparse matrix has elements outside of it')
    columns = np.repeat(np.arange(shape[1]), np.diff(ends))
    matrix = np.zeros(shape)
    np.add.at(matrix, (rows, columns), values)
    return matrix
