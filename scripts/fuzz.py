"""Fuzzes what reads messages and files: only errors of the package's own may come out, and soon.

    .venv/bin/python scripts/fuzz.py                         everything, some 250,000 cases
    .venv/bin/python scripts/fuzz.py --share 0.01            a hundredth of it
    .venv/bin/python scripts/fuzz.py --target image          one target
    .venv/bin/python scripts/fuzz.py --case image:1234       one case again, in this process

Every case has a seed of its own (that of the run, target, number). Cases run in child processes, so that one
that ends its process is told as well. Inputs that something was found with are written to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Whatever the libraries would start in threads, there is nothing to gain with inputs this small.
for _library in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(_library, '1')

from fuzzing.file_targets import FILE_TARGETS  # noqa: E402
from fuzzing.message_targets import MESSAGE_TARGETS  # noqa: E402
from fuzzing.network_targets import NETWORK_TARGETS  # noqa: E402
from fuzzing.target import Target  # noqa: E402
from fuzzing.worker import (  # noqa: E402
    COUNTER,
    keep_case,
    make_case,
    print_outcome,
    run_case,
    run_cases,
)

TARGETS = {target.name: target for target in (*MESSAGE_TARGETS, *FILE_TARGETS, *NETWORK_TARGETS)}

#: A case that takes longer than this by the clock hangs where no signal reaches it.
_HANGS_AFTER_S = 60.0

#: Growth of one process, after its warm-up, that is a finding.
_GROWTH_LIMIT = 24 * 2**20


@dataclass
class Total:
    """What all cases of one target came to."""

    cases: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    growth: int = 0  #: bytes, of the process that grew most
    seconds: float = 0.0


def main() -> int:
    """The command; 1 where something was found."""
    arguments = _parsed()
    if arguments.worker:
        name, first, count, progress = arguments.worker
        print_outcome(
            run_cases(TARGETS[name], int(first), int(count), arguments.seed, arguments.out, Path(progress))
        )
        return 0
    if arguments.case:
        return _again(arguments)
    totals = {name: _fuzz(TARGETS[name], arguments) for name in arguments.target or TARGETS}
    _report(totals, arguments)
    return 1 if any(total.findings for total in totals.values()) else 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--target', action='append', choices=TARGETS, help='only this one; may be repeated')
    parser.add_argument('--share', type=float, default=1.0, help='of the cases of each target (default: 1)')
    parser.add_argument('--cases', type=int, help='of each target, whatever its share')
    parser.add_argument('--seed', default='0', help='of the run (default: 0)')
    parser.add_argument('--out', type=Path, default=Path('fuzz-findings'), help='folder for findings')
    parser.add_argument('--case', metavar='TARGET:NUMBER', help='run one case again')
    parser.add_argument('--worker', nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def _again(arguments: argparse.Namespace) -> int:
    name, number = arguments.case.split(':')
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        reader = target.setup(Path(folder))
        keep_case(arguments.out, target, reader, arguments.seed, int(number), 'asked for')
        outcome: dict[str, Any] = {'read': 0, 'refused': Counter()}
        finding = run_case(reader, make_case(target, reader, arguments.seed, int(number)), outcome)
    print(finding['what'] if finding else outcome)
    return 1 if finding else 0


def _fuzz(target: Target, arguments: argparse.Namespace) -> Total:
    total = Total()
    start = time.monotonic()
    cases = arguments.cases or max(1, round(target.cases * arguments.share))
    number = 0
    while number < cases:
        number = _fuzz_batch(target, number, min(target.batch, cases - number), arguments, total)
    total.seconds = time.monotonic() - start
    found = f', FOUND {dict(total.findings)}' if total.findings else ''
    print(
        f'{target.name}: {total.cases} cases, {total.read} read, {sum(total.refused.values())} refused, '
        f'{total.growth / 2**20:+.1f} MB, {total.seconds:.0f} s{found}',
        flush=True,
    )
    return total


def _fuzz_batch(target: Target, first: int, count: int, arguments: argparse.Namespace, total: Total) -> int:
    """Cases in one process; the number of the case to go on with, as a process may end early."""
    with tempfile.TemporaryDirectory(prefix='fuzz-worker-') as folder:
        progress, log = Path(folder) / 'progress', Path(folder) / 'stderr'
        progress.write_bytes(COUNTER.pack(first))
        command = [
            *(sys.executable, __file__, '--seed', arguments.seed, '--out', str(arguments.out)),
            *('--worker', target.name, str(first), str(count), str(progress)),
        ]
        with log.open('wb') as stderr, (Path(folder) / 'stdout').open('w+b') as stdout:
            worker = subprocess.Popen(command, stdout=stdout, stderr=stderr)
            hangs = _waited(worker, progress)
            stdout.seek(0)
            printed = stdout.read().decode(errors='replace').splitlines()
        if worker.returncode == 0 and printed:
            _add(total, json.loads(printed[-1]), count, target, arguments)
            return first + count
        (number,) = COUNTER.unpack(progress.read_bytes())
        said = log.read_bytes()[-2000:].decode(errors='replace')
        what = 'hangs' if hangs else f'process ended with {worker.returncode}'
        _tell_of_crash(target, number, f'{what}\n{said}', arguments)
        total.findings[f'{what}: {said.strip().splitlines()[-1] if said.strip() else ""}'] += 1
        total.cases += number - first + 1
        return number + 1


def _waited(worker: subprocess.Popen, progress: Path) -> bool:
    """Wait until the worker ends; True where it had to be ended, as it came no further."""
    seen, since = b'', time.monotonic()
    while True:
        try:
            worker.wait(2.0)
            return False
        except subprocess.TimeoutExpired:
            now = progress.read_bytes()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > _HANGS_AFTER_S:
                worker.kill()
                worker.wait()
                return True


def _add(
    total: Total, outcome: dict[str, Any], count: int, target: Target, arguments: argparse.Namespace
) -> None:
    total.cases += count
    total.read += outcome['read']
    total.refused.update(outcome['refused'])
    total.findings.update(outcome['signatures'])
    for finding in outcome['findings']:
        print(f'{target.name}:{finding["case"]} {finding["signature"]}', flush=True)
    resident = [size for _, size in outcome['resident']]
    growth = resident[-1] - resident[0] if resident else 0
    if abs(growth) > abs(total.growth):
        total.growth = growth
    if growth > _GROWTH_LIMIT:
        total.findings[f'memory grew by {growth >> 20} MB: {outcome["resident"]}'] += 1


def _tell_of_crash(target: Target, number: int, what: str, arguments: argparse.Namespace) -> None:
    print(f'{target.name}:{number} {what}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        keep_case(arguments.out, target, target.setup(Path(folder)), arguments.seed, number, what)


def _report(totals: dict[str, Total], arguments: argparse.Namespace) -> None:
    print(f'\n{"target":20}{"kind":9}{"cases":>8}{"read":>8}{"refused":>9}{"growth MB":>11}{"found":>7}')
    for name, total in totals.items():
        print(
            f'{name:20}{TARGETS[name].kind:9}{total.cases:8}{total.read:8}{sum(total.refused.values()):9}'
            f'{total.growth / 2**20:11.1f}{sum(total.findings.values()):7}'
        )
    for kind in ('message', 'file'):
        cases = sum(total.cases for name, total in totals.items() if TARGETS[name].kind == kind)
        print(f'{kind}s: {cases}')
    found = sum(sum(total.findings.values()) for total in totals.values())
    print(f'found: {found}' + (f'; inputs in {arguments.out}' if found else ''))


if __name__ == '__main__':
    sys.exit(main())
