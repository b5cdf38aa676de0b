"""What tests of trainings share: runs that are killed, and runs that must be the same."""

import csv

import pytest
import torch

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.networks.weights import load_weights
from hand_mesh_ros.training.checkpoints import load_checkpoint
from hand_mesh_ros.training.processes import ProcessGroup

ALONE = ProcessGroup(0, 1, torch.device('cpu'))


class Killed(Exception):
    pass


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{key: value for key, value in row.items() if key != 'seconds_per_step'} for row in rows]


def assert_same_runs(folder, other):
    one, two = (load_checkpoint(path / 'checkpoints') for path in (folder, other))
    assert one.state == two.state
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name]), name
    moments = (checkpoint.optimizer['state'] for checkpoint in (one, two))
    for first, second in zip(*(state.values() for state in moments), strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)
    for name in ('training.csv', 'evaluation.csv'):
        assert without_times(rows_of(folder / name)) == without_times(rows_of(other / name))
    best, other_best = (load_weights(path / 'best.safetensors') for path in (folder, other))
    assert best[1] == other_best[1]
    assert all(torch.equal(tensor, other_best[0][name]) for name, tensor in best[0].items())


def assert_resumes(train, objective, configuration, folder, monkeypatch, kill_at=4):
    """A run that is killed at its ``kill_at``-th step and resumed ends as an uninterrupted one."""
    model = load_hand_model()
    assert train(configuration, model, folder / 'whole', ALONE, resume=False)
    losses = objective.losses
    with monkeypatch.context() as patch:
        calls = iter(range(1, 100))

        def killed(*arguments):
            if next(calls) == kill_at:
                raise Killed
            return losses(*arguments)

        patch.setattr(objective, 'losses', killed)
        with pytest.raises(Killed):
            train(configuration, model, folder / 'killed', ALONE, resume=False)
    assert train(configuration, model, folder / 'killed', ALONE, resume=True)
    assert_same_runs(folder / 'whole', folder / 'killed')
