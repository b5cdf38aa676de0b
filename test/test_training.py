"""What every training run can rely on: configurations, checkpoints, resuming, several processes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from training_runs import ALONE, Killed, assert_resumes, assert_same_runs, rows_of

from hand_mesh_ros.cli.main import main
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.networks.vq_mano import VqManoConfiguration, load_vq_mano
from hand_mesh_ros.networks.weights import load_weights
from hand_mesh_ros.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from hand_mesh_ros.training.configuration import LoopConfiguration, configuration_from, load_configuration
from hand_mesh_ros.training.loop import Training, learning_rate
from hand_mesh_ros.training.vq_mano import VqManoObjective, VqManoTrainingConfiguration, train_vq_mano

ROOT = Path(__file__).resolve().parent.parent
LOOP = LoopConfiguration(
    steps=12, batch_size=16, warmup_steps=3, log_every=2, evaluate_every=3, checkpoint_every=5
)
SMALL = VqManoTrainingConfiguration(
    network=VqManoConfiguration(tokens=16, codebook_size=32, code_dim=8, width=16, depth=1),
    loop=LOOP,
    loss_vertices=20,
    held_out_poses=30,
)


class Guess:
    """Fits a line to a line, with dropout, so that a step draws random numbers."""

    criterion = 'distance'

    def __init__(self, on_step=lambda step: None, figures=None):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.companions = nn.Module()
        self.companions.register_buffer('updates', torch.zeros(()))
        self._on_step = on_step
        self._figures = iter(figures) if figures else None

    def batches(self, first_step, group):
        step = first_step
        while True:
            self._on_step(step)
            generator = torch.Generator().manual_seed(step)
            yield torch.randn(16, 4, generator=generator)
            step += 1

    def losses(self, network, batch):
        error = (network(batch) - batch.sum(dim=1, keepdim=True)).square().mean()
        return {'loss': error}

    def after_update(self, step, group):
        self.companions.updates += step

    def evaluate(self):
        if self._figures:
            return {'distance': next(self._figures)}
        batch = torch.ones(1, 4)
        return {'distance': (self.network(batch) - 4).abs().item()}


def run(objective, folder, loop=LOOP, resume=False, description=None):
    return Training(objective, loop, folder, ALONE, description or {'network': 'guess'}, {}).run(resume)


def kill_at(step):
    def on_step(current):
        if current == step:
            raise Killed

    return on_step


@pytest.mark.parametrize('kill', [5, 8, 11])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, kill):
    assert run(Guess(), tmp_path / 'whole')
    with pytest.raises(Killed):
        run(Guess(kill_at(kill)), tmp_path / 'killed')
    assert run(Guess(), tmp_path / 'killed', resume=True)
    assert_same_runs(tmp_path / 'whole', tmp_path / 'killed')


def test_sigterm_ends_a_run_at_a_checkpoint_to_resume_from(tmp_path):
    def on_step(step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert run(Guess(), tmp_path / 'whole')
    assert not run(Guess(on_step), tmp_path / 'ended')
    assert load_checkpoint(tmp_path / 'ended' / 'checkpoints').state['step'] == 7
    assert signal.getsignal(signal.SIGTERM) is before
    assert run(Guess(), tmp_path / 'ended', resume=True)
    assert_same_runs(tmp_path / 'whole', tmp_path / 'ended')


def test_vq_mano_killed_and_resumed_equals_an_uninterrupted_run(tmp_path, monkeypatch):
    assert_resumes(train_vq_mano, VqManoObjective, SMALL, tmp_path, monkeypatch, kill_at=8)


def test_the_best_weights_are_kept(tmp_path):
    run(Guess(figures=[3.0, 1.0, 2.0, 1.5]), tmp_path)
    _, description = load_weights(tmp_path / 'best.safetensors')
    assert description == {'network': 'guess', 'step': 6, 'figures': {'distance': 1.0}}
    rows = rows_of(tmp_path / 'evaluation.csv')
    assert [(row['step'], float(row['distance'])) for row in rows] == [
        ('3', 3.0),
        ('6', 1.0),
        ('9', 2.0),
        ('12', 1.5),
    ]


def test_training_makes_the_loss_small(tmp_path):
    run(Guess(), tmp_path, replace(LOOP, steps=300, learning_rate=3e-2))
    losses = [float(row['loss']) for row in rows_of(tmp_path / 'training.csv')]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_tensorboard_gets_what_the_tables_get(tmp_path):
    accumulators = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator', reason='tensorboard is not installed'
    )
    run(Guess(), tmp_path)
    board = accumulators.EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    losses = [(event.step, event.value) for event in board.Scalars('training/loss')]
    rows = rows_of(tmp_path / 'training.csv')
    assert losses == [(int(row['step']), pytest.approx(float(row['loss']))) for row in rows]
    assert [event.step for event in board.Scalars('evaluation/distance')] == [3, 6, 9, 12]


def test_a_run_is_not_overwritten_nor_mixed_with_another(tmp_path):
    run(Guess(), tmp_path)
    with pytest.raises(ConfigurationError, match='--resume'):
        run(Guess(), tmp_path)
    with pytest.raises(ConfigurationError, match='another'):
        run(Guess(), tmp_path, resume=True, description={'network': 'something else'})


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    objective = Guess()
    with torch.no_grad():
        objective.network[0].weight.fill_(float('nan'))
    with pytest.raises(ConfigurationError, match='learning_rate'):
        run(objective, tmp_path, replace(LOOP, checkpoint_every=1, log_every=10))
    assert load_checkpoint(tmp_path / 'checkpoints') is None


def test_the_learning_rate_rises_and_falls():
    loop = LoopConfiguration(steps=110, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(loop, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_only_the_newest_whole_checkpoint_counts(tmp_path):
    tensors = {'a': torch.arange(6.0).reshape(2, 3).T}
    for step in (9, 10):
        save_checkpoint(tmp_path, step, Checkpoint(tensors, {'state': {}}, {'step': step}))
    (tmp_path / 'step-00000011.partial').mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['step-00000010', 'step-00000011.partial']
    loaded = load_checkpoint(tmp_path)
    assert loaded.state == {'step': 10}
    assert torch.equal(loaded.tensors['a'], tensors['a'])
    assert load_checkpoint(tmp_path / 'none') is None


class Harmful:
    def __reduce__(self):
        return os.system, ('exit 1',)


@pytest.mark.parametrize('name', ['tensors.safetensors', 'optimizer.pt', 'state.json'])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    path = save_checkpoint(tmp_path, 3, Checkpoint({}, {}, {'step': 3}))
    (path / name).write_bytes(b'\0damaged')
    with pytest.raises(FileFormatError, match='step-00000003'):
        load_checkpoint(tmp_path)
    (path / name).unlink()
    with pytest.raises(FileFormatError, match='step-00000003'):
        load_checkpoint(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    path = save_checkpoint(tmp_path, 3, Checkpoint({}, {}, {'step': 3}))
    torch.save({'harm': Harmful()}, path / 'optimizer.pt')
    with pytest.raises(FileFormatError, match='step-00000003'):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'config' / 'training').glob('vq_mano*.yaml')), ids=lambda p: p.name
)
def test_shipped_configurations_are_valid(path):
    configuration = load_configuration(path, VqManoTrainingConfiguration)
    assert configuration.held_out_poses == 10000
    # A longer file than the defaults: none of the network's sizes is left to chance
    assert configuration.network == VqManoConfiguration()


def test_a_configuration_takes_what_is_said_and_defaults_for_the_rest(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('loop: {steps: 7, learning_rate: 1}\nloss: {pose: 2.5}\n')
    configuration = load_configuration(path, VqManoTrainingConfiguration)
    assert (configuration.loop.steps, configuration.loop.learning_rate) == (7, 1.0)
    assert configuration.loss.pose == 2.5
    assert configuration.network == VqManoConfiguration()
    path.write_text('')
    assert load_configuration(path, VqManoTrainingConfiguration) == VqManoTrainingConfiguration()


@pytest.mark.parametrize(
    ('text', 'complaint'),
    [
        ('loop: {steps: 0}', 'steps'),
        ('loop: {steps: 1.5}', 'steps: 1.5 is not of type int'),
        ('loop: {steps: true}', 'steps'),
        ('loop: {learning_rate: 1e-3}', 'point'),
        ('loop: {learning_rate: .nan}', 'learning_rate'),
        (f'loop: {{learning_rate: {"9" * 400}}}', 'too large'),
        (f'loop: {{steps: {"9" * 5000}}}', 'digits'),
        (f'loop: {{steps: -0x{"f" * 5000}}}', 'digits'),
        ('loop: {steps: 2001-99-99}', 'not YAML'),
        ('[' * 5000, 'not YAML'),
        ('loop: &x [1]\nloss: *x', 'aliases'),
        ('loop: {learning_rate: .inf}', 'learning_rate'),
        ('loop: {precision: float16}', 'precision'),
        ('loop: {seed: 1000000007}', 'seed'),
        ('loop: 5', 'loop'),
        ('loop: {stepz: 3}', 'stepz'),
        ('1: 2', 'no such key'),
        ('network: {tokens: 17}', 'tokens'),
        ('codebook: {decay: 1.0}', 'decay'),
        ('loss: {pose: -1}', 'pose'),
        ('loss_vertices: 3', 'loss_vertices'),
        ('- a list', 'keys and values'),
        ('a: [', 'not YAML'),
        ('a: !!python/object/apply:os.system ["exit 1"]', 'not YAML'),
    ],
)
def test_wrong_configurations_are_refused_by_name(tmp_path, text, complaint):
    path = tmp_path / 'wrong.yaml'
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_configuration(path, VqManoTrainingConfiguration)
    assert 'wrong.yaml' in str(caught.value)


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match='none.yaml'):
        load_configuration(tmp_path / 'none.yaml', VqManoTrainingConfiguration)


def small_file(folder, **changes):
    path = folder / 'small.yaml'
    content = {
        'network': vars(SMALL.network),
        'loop': vars(LOOP) | changes,
        'loss_vertices': 20,
        'held_out_poses': 30,
    }
    assert configuration_from(content, VqManoTrainingConfiguration)
    path.write_text(json.dumps(content))  # which is YAML, too
    return path


def test_the_command_trains_and_resumes(tmp_path, capsys):
    command = ['train', 'vq-mano', '--config', str(small_file(tmp_path)), '--out', str(tmp_path / 'run')]
    assert main([*command, '--steps', '4']) == 0
    assert 'step 4: vertex_mm' in capsys.readouterr().out
    assert main(command) == 2  # without --resume
    assert '--resume' in capsys.readouterr().err
    assert main([*command, '--steps', '0']) == 2
    assert main([*command, '--resume']) == 0
    # What was run can be run again
    again = load_configuration(tmp_path / 'run' / 'configuration.yaml', VqManoTrainingConfiguration)
    assert again == SMALL
    assert [row['step'] for row in rows_of(tmp_path / 'run' / 'training.csv')] == [
        str(s) for s in range(2, 13, 2)
    ]
    network = load_vq_mano(tmp_path / 'run' / 'best.safetensors')
    assert network.configuration == SMALL.network


def test_without_torch_the_command_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from hand_mesh_ros.cli.main import main; "
        "sys.exit(main(['train', 'vq-mano', '--config', 'a.yaml', '--out', 'out']))"
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "needs torch: pip install 'hand-mesh-ros[train]'" in done.stderr


def test_two_processes_train_as_one_with_the_double_batch(tmp_path):
    train = ['-m', 'hand_mesh_ros.cli.main', 'train', 'vq-mano', '--out']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    for name, batch, launcher in (
        ('two', 16, ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']),
        ('one', 32, []),
    ):
        folder = tmp_path / name
        folder.mkdir()
        config = small_file(folder, batch_size=batch, log_every=1)
        done = subprocess.run(
            [sys.executable, *launcher, *train, str(folder), '--config', str(config)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    two, one = (rows_of(tmp_path / name / 'training.csv') for name in ('two', 'one'))
    assert len(two) == len(one) == LOOP.steps
    for row, other in zip(two, one, strict=True):
        for term in ('loss', 'pose', 'joints', 'vertices', 'commitment'):
            assert float(row[term]) == pytest.approx(float(other[term]), rel=1e-3)
    two, one = (load_checkpoint(tmp_path / name / 'checkpoints').tensors for name in ('two', 'one'))
    for tensor, wanted in two.items():
        torch.testing.assert_close(wanted, one[tensor], rtol=1e-2, atol=1e-3)
