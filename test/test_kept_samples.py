"""Samples that are kept in files: that they are the ones that were made, each in its turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from training_runs import ALONE, Killed, assert_resumes, rows_of, small_maskhand_training

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.training.kept_samples import KeptSamples
from hand_mesh_ros.training.maskhand import MaskHandObjective, MaskHandTrainingConfiguration, train_maskhand
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.samples import SampleMaker, Samples

MODEL = load_hand_model()
CPU = torch.device('cpu')


class NoisyPictures(SampleMaker):
    """Hands whose pictures show noise, which takes a hundredth of the time; whatever counts is the same."""

    def __init__(self) -> None:
        super().__init__(MODEL, 1, 8, residuals=True, pictures=False)

    def __getitem__(self, indices: np.ndarray) -> Samples:
        pictures = [np.random.default_rng(i).integers(0, 256, (3, 8, 8), np.uint8) for i in indices]
        samples = super().__getitem__(indices)
        in_the_loop = torch.as_tensor(indices % 3 == 0)
        return samples._replace(images=torch.as_tensor(np.stack(pictures)), in_the_loop=in_the_loop)


class Sight:
    """Two maps of pictures; counts how often it was asked, and may be killed."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.asked, self._kill_at = 0, kill_at

    def __call__(self, images: Tensor) -> list[Tensor]:
        self.asked += 1
        if self.asked == self._kill_at:
            raise Killed
        return [avg_pool2d(images, 2), avg_pool2d(images, 4)]


def tensors_of(samples: Samples) -> list[Tensor]:
    fields = samples._replace(images=None)
    return [
        t for field in fields if field is not None for t in (field if isinstance(field, tuple) else [field])
    ]


def assert_same(one: Samples, other: Samples) -> None:
    for ours, theirs in zip(tensors_of(one), tensors_of(other), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.fixture(scope='module')
def made() -> Samples:
    """What is to be kept of 1300 samples."""
    samples = NoisyPictures()[np.arange(1300)]
    assert samples.images is not None
    return samples._replace(seen=tuple(m.half() for m in Sight()(samples.images.float() / 255)))


@pytest.fixture(scope='module')
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptSamples:
    kept = KeptSamples(tmp_path_factory.mktemp('kept'), 100, 'these')
    kept.complete(NoisyPictures(), Sight(), CPU, workers=0)
    return kept


def test_an_interrupted_writing_goes_on(made: Samples, tmp_path: Path) -> None:
    for kill_at in (3, 19):  # before anything is noted, and after
        with pytest.raises(Killed):
            KeptSamples(tmp_path, 1300, 'these').complete(NoisyPictures(), Sight(kill_at), CPU, workers=0)
    sight = Sight()
    KeptSamples(tmp_path, 1300, 'these').complete(NoisyPictures(), sight, CPU, workers=0)
    assert sight.asked < 6  # of 21 batches
    again = KeptSamples(tmp_path, 1300, 'these')
    again.complete(NoisyPictures(), Sight(kill_at=1), CPU, workers=0)  # nothing is missing
    assert_same(again.batch(np.arange(1300)), made)


def test_samples_come_in_the_order_asked_for(kept: KeptSamples, made: Samples) -> None:
    numbers = np.array([70, 3, 99, 3, 0])
    assert_same(kept.batch(numbers), made.those(torch.from_numpy(numbers)))


def test_every_sample_of_an_epoch_comes_once_and_resuming_finds_its_place(kept: KeptSamples) -> None:
    batches = kept.batches(5, 0, 20, ALONE)
    drawn = [next(batches) for _ in range(15)]
    roots = [batch.root_depth_m for batch in drawn]  # no two hands are equally far away
    every = kept.batch(np.arange(100)).root_depth_m
    epochs = [torch.cat(roots[start : start + 5]) for start in (0, 5, 10)]
    assert len(every.unique()) == 100
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, every.sort().values)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])
    assert_same(next(kept.batches(5, 7, 20, ALONE)), drawn[7])
    assert not torch.equal(next(kept.batches(6, 0, 20, ALONE)).root_depth_m, roots[0])


def test_processes_share_what_one_alone_would_take(kept: KeptSamples) -> None:
    alone = kept.batches(5, 3, 24, ALONE)
    parts = [kept.batches(5, 3, 12, ProcessGroup(rank, 2, CPU)) for rank in range(2)]
    for _ in range(6):
        whole, first, second = next(alone), *(next(part) for part in parts)
        assert_same(whole.part(0, 12), first)
        assert_same(whole.part(12, 24), second)
        assert not set(first.root_depth_m.tolist()) & set(second.root_depth_m.tolist())


def test_other_samples_are_no_use(kept: KeptSamples, tmp_path: Path) -> None:
    KeptSamples(tmp_path, 5, 'these').complete(NoisyPictures(), Sight(), CPU, workers=0)
    for count, key in ((5, 'those'), (6, 'these')):
        with pytest.raises(ConfigurationError, match='other samples'):
            KeptSamples(tmp_path, count, key)
    with pytest.raises(ConfigurationError, match='fewer than the 102 of one step'):
        next(kept.batches(5, 0, 51, ProcessGroup(0, 2, CPU)))


# In a training


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> MaskHandTrainingConfiguration:
    return replace(small_maskhand_training(tmp_path_factory.mktemp('parts')), kept_samples=8)


def test_a_killed_training_resumes_with_its_samples(
    small: MaskHandTrainingConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_resumes(train_maskhand, MaskHandObjective, small, tmp_path, monkeypatch)
    files = {path.name for path in (tmp_path / 'whole' / 'samples').iterdir()}
    assert {'progress.json', 'seen_0.npy', 'seen_2.npy', 'cue_world.npy'} <= files
    assert [row['step'] for row in rows_of(tmp_path / 'killed' / 'training.csv')] == ['1', '2', '3', '4']
    with pytest.raises(ConfigurationError, match='other samples'):
        longer = replace(small, residuals=False, loop=replace(small.loop, steps=5))
        train_maskhand(longer, MODEL, tmp_path / 'whole', ALONE, resume=True)


def test_it_learns_from_kept_samples_what_it_learns_from_pictures(
    small: MaskHandTrainingConfiguration, tmp_path: Path
) -> None:
    """The maps are kept in half precision, nothing else is lost."""
    objective = MaskHandObjective(small, MODEL, CPU, tmp_path)
    batch = next(objective.batches(0, ALONE))
    assert batch.images is None and [m.shape[0] for m in batch.seen] == [4, 4, 4]
    maker = SampleMaker(MODEL, small.loop.seed, 64, residuals=True, pictures=True)
    every = maker[np.arange(8)]
    numbers = [int((every.root_depth_m == root).nonzero()) for root in batch.root_depth_m]
    pictures = every.those(torch.tensor(numbers))
    found = []
    for samples in (batch, pictures):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(objective.losses(objective.network.train(), samples))
    for name, value in found[0].items():
        assert value.item() == pytest.approx(found[1][name].item(), rel=1e-2), name


def test_a_backbone_that_learns_sees_otherwise_every_time(
    small: MaskHandTrainingConfiguration, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match='kept_samples'):
        MaskHandObjective(replace(small, frozen_stages=7), MODEL, CPU, tmp_path)
