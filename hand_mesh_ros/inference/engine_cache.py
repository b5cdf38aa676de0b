"""Engines kept in files, so that they are built once for a machine.

An engine is of one graph, one version of TensorRT, one kind of GPU, one precision. Loaded anywhere else it
ends the process or computes nonsense, so every file says in a header of its own what it is of, how long it is
and what it hashes to, and nothing is handed out that is not just what was asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from hand_mesh_ros.errors import EngineError, FileFormatError

_logger = logging.getLogger(__name__)

_MAGIC = b'hand_mesh engine'
_LENGTH = struct.Struct('<Q')
_LONGEST_HEADER = 1 << 16

_ENGINE, _TIMING, _LOCK, _TEMPORARY = '.engine', '.timing', '.lock', '.tmp'

#: Names that :class:`EngineCache` gives: others in its folder are not its own.
_OWN_NAME = re.compile(r'-[0-9a-f]{32}\.(engine|timing|lock)(\.\w+\.tmp)?$')

#: Between two looks at a lock that another process holds.
_POLL_S = 0.2


@dataclass(frozen=True)
class EngineKey:
    """What an engine is of. Engines of different keys are different engines."""

    graph_sha256: str  #: of the ONNX file
    weights_sha256: str  #: of its external data; empty if it has none
    tensorrt: str  #: version
    gpu: str  #: name
    compute_capability: str
    precision: str  #: "fp16" or "fp32"
    batches: tuple[int, ...]  #: hands in a call, one optimisation profile each
    recipe: int  #: version of the way in which engines are built
    places_sha256: str  #: of the places that stay in float32; empty where all do

    def as_json(self) -> dict[str, Any]:
        """The key as JSON gives it back."""
        return {**asdict(self), 'batches': list(self.batches)}

    def digest(self) -> str:
        """32 hexadecimal digits."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CachedFile:
    """A file in the cache, as its header describes it."""

    path: Path
    size: int  #: bytes
    key: Mapping[str, Any]  #: empty where the file is damaged or foreign


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/hand_mesh_ros/engines``, by default in ``~/.cache``."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    # The specification says to ignore a relative one.
    root = Path(base) if os.path.isabs(base) else Path.home() / '.cache'
    return root / 'hand_mesh_ros' / 'engines'


class EngineCache:
    """Engines and timings of kernels in one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: made where missing; None for :func:`default_folder`."""
        self.folder = folder or default_folder()

    def path_of(self, name: str, key: EngineKey) -> Path:
        """Where the engine is, or would be."""
        return self.folder / f'{name}-{key.precision}-{key.digest()}{_ENGINE}'

    def load(self, name: str, key: EngineKey) -> bytes | None:
        """The engine, or None where there is none.

        :raises FileFormatError: there is a file that is damaged, cut off, of another key, or that users other
            than this one and root may have written.
        """
        return _read(self.path_of(name, key), key.as_json())

    def store(self, name: str, key: EngineKey, engine: bytes) -> bool:
        """Keep an engine. False, and a warning that says the remedy, where that cannot be done; no part of a
        file is left then."""
        return self._write(self.path_of(name, key), key.as_json(), engine)

    def load_timings(self, key: EngineKey) -> bytes:
        """What earlier builds measured on this kind of GPU; empty where nothing is known. A bad file is
        reported and ignored: timings only save time."""
        try:
            return _read(self._timing_path(key), _timing_key(key)) or b''
        except FileFormatError as error:
            _logger.warning('timings of earlier builds are ignored: %s', error)
            return b''

    def store_timings(self, key: EngineKey, timings: bytes) -> bool:
        """Keep what builds measured. False, and a warning, where that cannot be done."""
        return self._write(self._timing_path(key), _timing_key(key), timings)

    @contextlib.contextmanager
    def building(self, name: str, key: EngineKey, limit_s: float) -> Iterator[None]:
        """While this lasts, no other process or thread builds the same engine.

        The lock ends with its process, however that ends. Where no lock can be had, because the folder cannot
        be written, this goes on without, and says so.

        :param limit_s: how long to wait for another.
        :raises EngineError: another is still building after that.
        """
        path = self.path_of(name, key).with_suffix(_LOCK)
        lock = self._open_lock(path)
        if lock is None:
            yield
            return
        try:
            lock = _locked(lock, path, limit_s)
            # Of builds of this engine that were killed while they wrote it.
            for left in self.folder.glob(f'{self.path_of(name, key).name}.*{_TEMPORARY}'):
                with contextlib.suppress(OSError):
                    left.unlink()
            yield
        finally:
            lock.close()  # and so unlocks

    def files(self) -> list[CachedFile]:
        """All engines and timings in the folder, by name."""
        if not self.folder.is_dir():
            return []
        paths = sorted(path for path in self.folder.iterdir() if path.suffix in (_ENGINE, _TIMING))
        return [CachedFile(path, path.stat().st_size, _key_in(path)) for path in paths]

    def clear(self) -> list[Path]:
        """Delete what this class wrote, and what it was interrupted in writing. Returns what was deleted.

        :raises FileFormatError: a file cannot be deleted.
        """
        if not self.folder.is_dir():
            return []
        gone = []
        for path in sorted(self.folder.iterdir()):
            if not _OWN_NAME.search(path.name):
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise FileFormatError(f'{path}: cannot be deleted: {error}') from error
            if path.suffix != _LOCK:
                gone.append(path)
        return gone

    def _timing_path(self, key: EngineKey) -> Path:
        text = json.dumps(_timing_key(key), sort_keys=True)
        return self.folder / f'timings-{hashlib.sha256(text.encode()).hexdigest()[:32]}{_TIMING}'

    def _open_lock(self, path: Path) -> IO[bytes] | None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return path.open('ab')
        except OSError as error:
            _logger.warning(
                'the cache of engines %s cannot be written (%s): %s', self.folder, error, _remedy()
            )
            return None

    def _write(self, path: Path, key: Mapping[str, Any], data: bytes) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, _header(key, data), data)
        except OSError as error:
            _logger.warning('%s could not be written (%s): %s', path, error, _remedy())
            return False
        return True


def _remedy() -> str:
    return (
        'the engine is used from memory and will be built anew at the next start; free space there, or set '
        'XDG_CACHE_HOME to a folder that can be written'
    )


def _timing_key(key: EngineKey) -> dict[str, Any]:
    return {
        'timings': True,
        'tensorrt': key.tensorrt,
        'gpu': key.gpu,
        'compute_capability': key.compute_capability,
    }


def _header(key: Mapping[str, Any], data: bytes) -> bytes:
    told = {'key': key, 'length': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
    text = json.dumps(told, sort_keys=True).encode()
    return _MAGIC + _LENGTH.pack(len(text)) + text


def _write_atomically(path: Path, *parts: bytes) -> None:
    """The file is there whole or not at all, whatever happens meanwhile."""
    handle, temporary = tempfile.mkstemp(prefix=f'{path.name}.', suffix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, outlives a loss of power
    finally:
        os.close(folder)


def _read(path: Path, key: Mapping[str, Any]) -> bytes | None:
    try:
        with path.open('rb') as file:
            # TensorRT trusts what it loads, and the hash in the header is whoever's wrote it
            status = os.fstat(file.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                raise _bad(path, 'belongs to another user, or others may write it')
            told = _told_by(file, path)
            if told['key'] != key:
                raise _bad(path, 'is an engine of something else')
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _bad(path, f'cannot be read ({error})') from error
    if len(data) != told['length']:
        raise _bad(path, f'is cut off or longer than it was: {len(data)} bytes of {told["length"]}')
    if hashlib.sha256(data).hexdigest() != told['sha256']:
        raise _bad(path, 'is damaged')
    return data


def _told_by(file: IO[bytes], path: Path) -> dict[str, Any]:
    """The header; the file then stands at its engine."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _bad(path, 'was not written by hand_mesh_ros')
    try:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if length > _LONGEST_HEADER:
            raise ValueError(f'a header of {length} bytes')
        told = json.loads(file.read(length))
        if not isinstance(told['key'], dict):
            raise TypeError('a key that is none')
        return {name: told[name] for name in ('key', 'length', 'sha256')}
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _bad(path, f'has a damaged header ({error})') from error


def _key_in(path: Path) -> Mapping[str, Any]:
    try:
        with path.open('rb') as file:
            told = _told_by(file, path)
            whole = path.stat().st_size - file.tell() == told['length']
            return told['key'] if whole else {}
    except (OSError, FileFormatError):
        return {}


def _bad(path: Path, what: str) -> FileFormatError:
    return FileFormatError(f'{path} {what}: delete it (hand-mesh engine clear) and build the engine anew')


def _locked(file: IO[bytes], path: Path, limit_s: float) -> IO[bytes]:
    """The file, locked: it or, where it was deleted meanwhile, another of its name."""
    deadline = time.monotonic() + limit_s
    said = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                _logger.warning('another process is building this engine: waiting for it (lock %s)', path)
                said = True
            if time.monotonic() >= deadline:
                file.close()
                raise EngineError(
                    f'another process has been building this engine for more than {limit_s:.0f} s and holds '
                    f'{path}: wait for it or end it, then start again'
                ) from None
            time.sleep(_POLL_S)
            continue
        except OSError as error:  # a file system without locks
            _logger.warning('%s cannot be locked (%s): going on without', path, error)
            return file
        if _is_at(file, path):
            return file
        file.close()
        file = path.open('ab')


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
