"""What tests of trainings share: runs that are killed, and runs that must be the same."""

import csv

import torch

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
