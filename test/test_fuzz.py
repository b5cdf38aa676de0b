"""Some hundred damaged messages and files through their readers; ``scripts/fuzz.py`` tries many more."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
FUZZ = Path(__file__).parent.parent / 'scripts' / 'fuzz.py'
sys.path.insert(0, str(FUZZ.parent))

pytest.importorskip('torch', reason='PyTorch is not installed')
pytest.importorskip('onnx', reason='ONNX is not installed')
from fuzzing.file_targets import FILE_TARGETS  # noqa: E402
from fuzzing.message_targets import MESSAGE_TARGETS  # noqa: E402
from fuzzing.mutations import damaged  # noqa: E402
from fuzzing.network_targets import NETWORK_TARGETS  # noqa: E402
from fuzzing.target import Reader, Target  # noqa: E402
from fuzzing.worker import make_case, run_case, run_cases  # noqa: E402

#: The others take longer for each case.
FEWER = {'mano_pickle': 10, 'mask2hand_weights': 10, 'video_avi': 20, 'video_mp4': 20, 'training_yaml': 40}


@pytest.mark.parametrize(
    'target', [*MESSAGE_TARGETS, *FILE_TARGETS, *NETWORK_TARGETS], ids=lambda target: target.name
)
def test_only_errors_of_the_package_come_out(target: Target, tmp_path: Path) -> None:
    reader = target.setup(tmp_path)
    outcome = {'read': 0, 'refused': Counter()}
    cases = FEWER.get(target.name, 200)
    for number in range(cases):
        finding = run_case(reader, make_case(target, reader, 'test', number), outcome)
        assert finding is None, f'--seed test --case {target.name}:{number}: {finding["what"]}'
    assert outcome['read'] + sum(outcome['refused'].values()) == cases


def test_a_case_can_be_made_again(tmp_path: Path) -> None:
    target = next(target for target in MESSAGE_TARGETS if target.name == 'image')
    first, again = (target.setup(tmp_path) for _ in range(2))
    for number in range(20):
        assert make_case(target, first, '1', number) == make_case(target, again, '1', number)


def test_what_goes_wrong_is_found_and_kept(tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        if len(content) > 40:
            raise ZeroDivisionError('a bug')

    target = Target('t', 'file', 1, lambda folder: Reader(lambda r: damaged(b'x' * 40, b'y' * 99, r), read))
    (tmp_path / 'progress').write_bytes(bytes(8))
    outcome = run_cases(target, 0, 100, '0', tmp_path / 'out', tmp_path / 'progress', limit_memory=False)
    assert len(outcome['findings']) == 3 and outcome['signatures'].total() > 10
    number = outcome['findings'][0]['case']
    assert len((tmp_path / 'out' / f't-{number}.input').read_bytes()) > 40
    assert 'a bug' in (tmp_path / 'out' / f't-{number}.txt').read_text()


def test_the_command_runs_one_target_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ), '--target', 'hand_boxes', '--cases', '50', '--out', str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'hand_boxes: 50 cases' in told and 'found: 0' in told
