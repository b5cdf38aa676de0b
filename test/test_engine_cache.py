"""Engines in files: what is handed out is whole and what was asked for, or nothing is."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
from engine_rig import write_graphs

from hand_mesh_ros.errors import EngineError, FileFormatError
from hand_mesh_ros.inference.engine_cache import EngineCache, EngineKey, default_folder

KEY = EngineKey('a' * 64, 'b' * 64, '8.6.0', 'NVIDIA H100', '9.0', 'fp16', (1, 2, 4), 1, 'd' * 64)
ENGINE = bytes(range(256)) * 40

OTHER_KEYS = {
    'graph_sha256': 'c' * 64,
    'weights_sha256': '',
    'tensorrt': '8.6.1',
    'gpu': 'Orin',
    'compute_capability': '8.7',
    'precision': 'fp32',
    'batches': (1, 2),
    'recipe': 2,
    'places_sha256': '',
}


def test_an_engine_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / 'not' / 'there')
    assert cache.load('hand', KEY) is None
    assert cache.store('hand', KEY, ENGINE)
    assert cache.load('hand', KEY) == ENGINE
    assert [path.suffix for path in cache.folder.iterdir()] == ['.engine']


@pytest.mark.parametrize('field', [field.name for field in fields(EngineKey)])
def test_whatever_an_engine_is_of_makes_another_engine(field: str, tmp_path: Path) -> None:
    other = replace(KEY, **{field: OTHER_KEYS[field]})
    cache = EngineCache(tmp_path)
    cache.store('hand', KEY, ENGINE)
    assert cache.load('hand', other) is None
    # Nor does it pass for that if its file is given that name.
    os.rename(cache.path_of('hand', KEY), cache.path_of('hand', other))
    with pytest.raises(FileFormatError, match='engine of something else.*engine clear'):
        cache.load('hand', other)


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _cut_in_header(data: bytes) -> bytes:
    return data[:60]


def _empty(data: bytes) -> bytes:
    return b''


def _longer(data: bytes) -> bytes:
    return data + b'x'


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _raw_engine(data: bytes) -> bytes:
    return ENGINE


def _endless_header(data: bytes) -> bytes:
    return data[:16] + b'\xff' * 8 + data[24:]


def _no_json(data: bytes) -> bytes:
    return data[:24] + b'{]' + data[26:]


@pytest.mark.parametrize(
    'damage', [_cut, _cut_in_header, _empty, _longer, _flipped, _raw_engine, _endless_header, _no_json]
)
def test_a_damaged_file_is_refused(damage, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store('hand', KEY, ENGINE)
    path = cache.path_of('hand', KEY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileFormatError, match=str(path)):
        cache.load('hand', KEY)
    cache.store('hand', KEY, ENGINE)  # and is replaced by the next that is built
    assert cache.load('hand', KEY) == ENGINE


def test_a_file_that_another_user_may_have_written_is_refused(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store('hand', KEY, ENGINE)
    path = cache.path_of('hand', KEY)
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(FileFormatError, match='others may write it.*engine clear'):
            cache.load('hand', KEY)
    path.chmod(0o644)
    assert cache.load('hand', KEY) == ENGINE
    if os.geteuid() == 0:  # else nothing can be given away
        os.chown(path, 12345, -1)
        with pytest.raises(FileFormatError, match='another user'):
            cache.load('hand', KEY)


def test_timings_are_of_a_version_and_a_gpu_and_a_bad_file_of_them_is_reported(tmp_path, caplog) -> None:
    cache = EngineCache(tmp_path)
    assert cache.load_timings(KEY) == b''
    cache.store_timings(KEY, b'timed')
    assert cache.load_timings(replace(KEY, graph_sha256='other', precision='fp32')) == b'timed'
    assert cache.load_timings(replace(KEY, tensorrt='10.3.0')) == b''
    assert cache.load_timings(replace(KEY, gpu='Orin')) == b''
    (path,) = tmp_path.glob('*.timing')
    path.write_bytes(path.read_bytes()[:-2])
    assert cache.load_timings(KEY) == b''
    assert 'timings of earlier builds are ignored' in caplog.text and str(path) in caplog.text


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert default_folder() == tmp_path / 'hand_mesh_ros' / 'engines'
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for value in ('', 'relative'):
        monkeypatch.setenv('XDG_CACHE_HOME', value)
        assert default_folder() == tmp_path / 'home' / '.cache' / 'hand_mesh_ros' / 'engines'


def test_the_cache_is_listed_and_cleared(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    assert EngineCache(tmp_path / 'none').files() == [] and EngineCache(tmp_path / 'none').clear() == []
    cache.store('hand', KEY, ENGINE)
    cache.store_timings(KEY, b'timed')
    (tmp_path / f'{cache.path_of("hand", KEY).name}.k3_x.tmp').write_bytes(b'x')
    users = [tmp_path / name for name in ('README', 'apt.lock', 'draft.tmp', 'foreign.engine')]
    for path in users:
        path.write_text('of the user')
    told = {file.path.name.split('-')[0]: dict(file.key) for file in cache.files()}
    assert told['foreign.engine'] == {}
    assert told['hand']['gpu'] == 'NVIDIA H100'
    assert set(told) == {'foreign.engine', 'hand', 'timings'}
    with cache.building('other', KEY, 1.0):
        pass  # leaves its lock
    assert len(cache.clear()) == 3
    assert sorted(tmp_path.iterdir()) == users


def _mounted(folder: Path, *options: str) -> None:
    done = subprocess.run(['mount', '-t', 'tmpfs', *options, 'tmpfs', str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f'no file system can be mounted here: {done.stderr.decode().strip()}')


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 64 KiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    _mounted(folder, '-o', 'size=64k')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_full_disk_leaves_no_part_of_a_file(small_disk: Path, caplog) -> None:
    cache = EngineCache(small_disk / 'engines')
    assert cache.store('hand', KEY, ENGINE)
    assert not cache.store('hand', replace(KEY, precision='fp32'), bytes(1 << 20))
    assert 'No space left' in caplog.text and 'from memory' in caplog.text and 'XDG_CACHE_HOME' in caplog.text
    assert [path.suffix for path in cache.folder.iterdir()] == ['.engine']
    assert cache.load('hand', KEY) == ENGINE


def test_a_failed_write_leaves_no_part_of_a_file_where_nothing_can_be_mounted(tmp_path: Path) -> None:
    # The limit on the size of files fails a write as a full disk does, half-way.
    script = (
        'import resource, signal, sys; from pathlib import Path\n'
        'from test_engine_cache import ENGINE, KEY\n'
        'from hand_mesh_ros.inference.engine_cache import EngineCache\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n'
        'assert not EngineCache(Path(sys.argv[1])).store("hand", KEY, ENGINE)\n'
    )
    done = _python('-c', script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert 'File too large' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_read_and_said(tmp_path: Path, caplog) -> None:
    folder = tmp_path / 'disk'
    folder.mkdir()
    _mounted(folder)
    try:
        cache = EngineCache(folder)
        cache.store('hand', KEY, ENGINE)
        subprocess.run(['mount', '-o', 'remount,ro', str(folder)], check=True)
        assert cache.load('hand', KEY) == ENGINE
        with cache.building('hand', KEY, 1.0):
            assert not cache.store('hand', replace(KEY, recipe=9), ENGINE)
        assert str(folder) in caplog.text and 'Read-only' in caplog.text and 'XDG_CACHE_HOME' in caplog.text
        with pytest.raises(FileFormatError, match='cannot be deleted'):
            cache.clear()
    finally:
        subprocess.run(['umount', str(folder)], check=True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, caplog) -> None:
    (tmp_path / 'file').write_text('in the way')  # root, too, is stopped by this
    cache = EngineCache(tmp_path / 'file' / 'engines')
    with cache.building('hand', KEY, 1.0):
        assert not cache.store('hand', KEY, ENGINE)
    assert caplog.text.count(str(cache.folder)) >= 2


def test_one_that_builds_makes_another_wait_and_the_wait_ends(tmp_path: Path, caplog) -> None:
    cache = EngineCache(tmp_path)
    with cache.building('hand', KEY, 1.0):
        with cache.building('hand', replace(KEY, precision='fp32'), 1.0):
            pass  # another engine may be built meanwhile
        start = time.monotonic()
        with (
            pytest.raises(EngineError, match=r'more than 1 s and holds .*lock'),
            cache.building('hand', KEY, 1.0),
        ):
            pytest.fail('two build the same engine')
        assert time.monotonic() - start < 30
    assert 'another process is building this engine' in caplog.text
    with cache.building('hand', KEY, 1.0):
        pass


def test_a_lock_deleted_meanwhile_still_locks(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    with cache.building('hand', KEY, 1.0):
        cache.clear()
        with (
            cache.building('hand', KEY, 1.0),  # who deletes locks gets what was asked for
            pytest.raises(EngineError),
            cache.building('hand', KEY, 0.5),
        ):
            pytest.fail('two build the same engine')


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parent,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )


def _builder(folder: Path, cache: Path, build_s: float, wait_s: float = 60.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, 'engine_rig.py', str(folder), str(cache), str(build_s), str(wait_s)],
        cwd=Path(__file__).parent,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_that_start_at_once_build_once(tmp_path: Path) -> None:
    write_graphs(tmp_path)
    first, second = (_builder(tmp_path, tmp_path / 'cache', 3.0) for _ in range(2))
    told = [process.communicate(timeout=100)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, told
    assert sorted(text.splitlines()[-1] for text in told) == ['builds 0', 'builds 1'], told
    waited = next(text for text in told if 'builds 0' in text)
    assert 'another process is building this engine' in waited or 'engine of small.encoder from' in waited


def test_a_build_that_is_killed_leaves_neither_lock_nor_file(tmp_path: Path) -> None:
    write_graphs(tmp_path)
    cache = tmp_path / 'cache'
    killed = _builder(tmp_path, cache, 60.0)
    try:
        deadline = time.monotonic() + 60
        while not list(cache.glob('*.lock')) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.0)  # it holds the lock and builds
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert not list(cache.glob('*.engine')) and not list(cache.glob('*.tmp'))
    after = _builder(tmp_path, cache, 0.0, 5.0)
    told, _ = after.communicate(timeout=100)
    assert after.returncode == 0 and told.splitlines()[-1] == 'builds 1', told


def test_what_a_killed_writer_left_is_cleared_away_by_the_next(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    cache = EngineCache(tmp_path)
    left = tmp_path / f'{cache.path_of("hand", KEY).name}.abc.tmp'
    left.write_bytes(ENGINE[:100])
    with cache.building('hand', KEY, 1.0):
        assert not left.exists()


def test_a_header_deeper_than_json_is_read_is_refused(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store('hand', KEY, ENGINE)
    path = cache.path_of('hand', KEY)
    path.write_bytes(b'hand_mesh engine' + (60_000).to_bytes(8, 'little') + b'[' * 60_000)
    with pytest.raises(FileFormatError, match='damaged header'):
        cache.load('hand', KEY)
    assert [file.key for file in cache.files()] == [{}]
