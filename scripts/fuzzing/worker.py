"""Cases of one target in a process of their own: what comes out of them, and how much memory they take."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import mmap
import resource
import signal
import struct
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.target import Reader, Target
from hand_mesh_ros.errors import HandMeshError

#: CPU time that one case may take.
TIME_LIMIT_S = 5.0

#: How much the resident memory may rise within one case: twice what the largest picture that is let in takes.
_PEAK_LIMIT = 600 * 2**20

#: What one process may take in all, beside what it has at its start: the machine is not to suffer.
_ADDRESS_SPACE = 8 * 2**30

#: Cases until the caches are full, and between two looks at the memory after that.
WARM_UP, SAMPLE_EVERY = 1000, 1000

#: So many inputs are kept of findings that look the same.
_KEPT = 3

COUNTER = struct.Struct('<q')


class Overdue(BaseException):
    """A case took too long. No Exception, so that no loader takes it for its own."""


def run_cases(
    target: Target,
    first: int,
    count: int,
    seed: str,
    out: Path,
    progress: Path,
    limit_memory: bool = True,
) -> dict[str, Any]:
    """The cases ``first`` to ``first + count - 1``: how many were read, refused, and what was found.

    :param out: folder for inputs that something was found with.
    :param progress: file that tells the number of the case in work, should the process end in it.
    """
    warnings.simplefilter('ignore')
    outcome: dict[str, Any] = {'read': 0, 'refused': Counter(), 'findings': [], 'resident': []}
    signatures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix='fuzz-') as folder, progress.open('r+b') as told:
        reader = target.setup(Path(folder))
        if limit_memory:  # of the whole process, for good
            _limit_address_space()
        with mmap.mmap(told.fileno(), COUNTER.size) as counter:
            for number in range(first, first + count):
                counter[:] = COUNTER.pack(number)
                finding = run_case(reader, make_case(target, reader, seed, number), outcome)
                if finding is not None:
                    finding['signature'] = signature = (
                        finding['what'].splitlines()[-1][:200] + finding['where']
                    )
                    signatures[signature] += 1
                    if signatures[signature] <= _KEPT:
                        outcome['findings'].append({'case': number, **finding})
                        keep_case(out, target, reader, seed, number, finding['what'])
                done = number - first + 1
                if (done >= WARM_UP and done % SAMPLE_EVERY == 0) or done == count:
                    outcome['resident'].append([done, resident_bytes()])
    outcome['signatures'] = signatures
    return outcome


def make_case(target: Target, reader: Reader, seed: str, number: int) -> Any:
    """The input of that number."""
    return reader.make(Random(f'{seed}/{target.name}/{number}'))


def run_case(reader: Reader, case: Any, outcome: dict[str, Any]) -> dict[str, str] | None:
    """What is wrong with how a case was read, if anything is; counts it in ``outcome``."""
    before = _reset_peak()
    signal.signal(signal.SIGPROF, _overdue)
    signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_S)
    try:
        reader.read(case)
        outcome['read'] += 1
    except HandMeshError as error:
        str(error).encode('utf-8', 'backslashreplace')
        outcome['refused'][type(error).__name__] += 1
    except (Exception, Overdue) as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        last = traceback.extract_tb(error.__traceback__)[-1]
        return {'what': _short_trace(error), 'where': f' ({Path(last.filename).name}:{last.lineno})'}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    risen = _peak() - before
    if risen > _PEAK_LIMIT:
        return {'what': f'memory rose by {risen >> 20} MB', 'where': ''}
    return None


def keep_case(out: Path, target: Target, reader: Reader, seed: str, number: int, what: str) -> None:
    """Write an input, and what was found with it, to files."""
    out.mkdir(parents=True, exist_ok=True)
    name = f'{target.name}-{number}'
    with contextlib.suppress(Exception):  # an input may be too odd even to be written
        (out / f'{name}.input').write_bytes(reader.as_bytes(make_case(target, reader, seed, number)))
    (out / f'{name}.txt').write_text(
        f'{what}\n\nagain: scripts/fuzz.py --seed {seed} --case {target.name}:{number}\n', errors='replace'
    )


def resident_bytes() -> int:
    """What the process holds, after it has given back what it need not."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


def _short_trace(error: BaseException) -> str:
    lines = traceback.format_exception(error)
    text = ''.join(lines)
    return text if len(text) < 6000 else f'{text[:3000]}\n[...]\n{text[-3000:]}'


def _overdue(number: int, frame: Any) -> None:
    raise Overdue(f'more than {TIME_LIMIT_S:g} s')


def _limit_address_space() -> None:
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE, hard))


def _reset_peak() -> int:
    """Start to look for the highest resident memory anew; what it is now, in bytes."""
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')
    return _peak()


def _peak() -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM'):
            return int(line.split()[1]) * 1024
    return 0


def print_outcome(outcome: dict[str, Any]) -> None:
    """As the one line of JSON that the command reads."""
    print(json.dumps(outcome), flush=True)
