"""What tests of trainings share: runs that are killed, and runs that must be the same."""

import csv

import pytest
import torch

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.lifter import Lifter
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration
from hand_mesh_ros.networks.weights import load_weights, save_weights
from hand_mesh_ros.training.checkpoints import load_checkpoint
from hand_mesh_ros.training.configuration import LoopConfiguration
from hand_mesh_ros.training.maskhand import MaskHandTrainingConfiguration
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.vq_mano import describe

ALONE = ProcessGroup(0, 1, torch.device('cpu'))

LOOP = LoopConfiguration(
    steps=4, batch_size=4, warmup_steps=2, log_every=1, evaluate_every=2, checkpoint_every=2
)


class Killed(Exception):
    pass


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{key: value for key, value in row.items() if key != 'seconds_per_step'} for row in rows]


def small_maskhand_training(folder):
    """A MaskHand's training of seconds, with a small VQ-MANO and a small lifter in files of ``folder``."""
    torch.manual_seed(0)
    sizes = VqManoConfiguration(tokens=16, codebook_size=32, code_dim=8, width=16, depth=1)
    save_weights(folder / 'vq_mano.safetensors', VqMano(sizes), describe(sizes, load_hand_model()))
    description = {'network': 'lifter', 'configuration': {'width': 24, 'depth': 1}}
    save_weights(folder / 'lifter.safetensors', Lifter(24, 1), description)
    return MaskHandTrainingConfiguration(
        vq_mano=str(folder / 'vq_mano.safetensors'),
        lifters=(str(folder / 'lifter.safetensors'),),
        network=MaskHandConfiguration(
            image_size=64,
            backbone='tf_efficientnet_lite0',
            strides=(8, 16, 32),
            width=16,
            heads=2,
            synthesizer_blocks=1,
            lifters=((24, 1),),
        ),
        frozen_stages=8,
        looked_share=0,
        loop=LOOP,
        workers=0,
        held_out_samples=4,
    )


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
