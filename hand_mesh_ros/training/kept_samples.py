"""Samples that are made once and used many times, with what a frozen backbone sees in their images.

On a CPU a frozen backbone and the rendering take most of a step; a sample of 64 kilobytes instead lets the
rest of the network learn several times as fast.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.networks.skeleton_graph import HandCues
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.samples import SampleMaker, Samples, batches

_BATCH = 64


class KeptSamples:
    """Samples 0 to ``count`` - 1 of a maker, in files of a folder.

    Writing goes on where it was interrupted.
    """

    def __init__(self, folder: Path, count: int, key: str) -> None:
        """Open or begin the files.

        :param key: says what the samples are made of; files of another key are no use.
        :raises ConfigurationError: the folder holds other samples.
        """
        self._folder, self._count, self._key = folder, count, key
        self._progress = folder / 'progress.json'
        folder.mkdir(parents=True, exist_ok=True)
        self._arrays: dict[str, np.ndarray] = {}
        if self._progress.exists():
            said = json.loads(self._progress.read_text(encoding='utf-8'))
            if (said['key'], said['count']) != (key, count):
                raise ConfigurationError(f'{folder} holds other samples: delete it, or say another --out')
            self._arrays = {name: open_memmap(folder / f'{name}.npy', 'r+') for name in said['arrays']}
            self.done = int(said['done'])
        else:
            self.done = 0

    def complete(
        self,
        maker: SampleMaker,
        see: Callable[[Tensor], list[Tensor]],
        device: torch.device,
        workers: int,
    ) -> None:
        """Make the samples that are missing; ``see`` gives maps of images (B,3,S,S) float RGB, 0..1."""
        if self.done == self._count:
            return
        alone = ProcessGroup(0, 1, device)
        made = batches(maker, self.done // _BATCH, _BATCH, alone, workers)
        progress = tqdm(total=self._count, initial=self.done, unit='sample', disable=None)
        with progress, torch.inference_mode():
            while self.done < self._count:
                samples = next(made)
                assert samples.images is not None  # the maker renders
                seen = see(samples.images.to(device).float() / 255)
                kept = samples._replace(images=None, seen=tuple(m.half().cpu() for m in seen))
                self._store(_flat(kept.part(0, min(_BATCH, self._count - self.done))))
                progress.update(min(_BATCH, self._count - progress.n))

    def batch(self, numbers: np.ndarray) -> Samples:
        """The samples with these numbers (N,)."""
        # Memory maps like to be read in order
        order = np.argsort(numbers, kind='stable')
        back = np.argsort(order, kind='stable')
        tensors = {
            name: torch.from_numpy(values[numbers[order]][back]) for name, values in self._arrays.items()
        }
        return _samples(tensors)

    def batches(self, seed: int, first_step: int, batch_size: int, group: ProcessGroup) -> Iterator[Samples]:
        """Batches without end, each epoch in an order of its own; see ``Objective.batches``.

        :raises ConfigurationError: there are fewer samples than one batch of all processes takes.
        """
        whole = batch_size * group.size
        steps = self._count // whole
        if steps == 0:
            raise ConfigurationError(f'kept_samples is {self._count}, fewer than the {whole} of one step')
        step = first_step
        while True:
            epoch, within = divmod(step, steps)
            order = np.random.default_rng([seed, epoch]).permutation(self._count)
            start = within * whole + group.rank * batch_size
            yield self.batch(order[start : start + batch_size])
            step += 1

    def _store(self, tensors: dict[str, Tensor]) -> None:
        first = self.done
        for name, tensor in tensors.items():
            values = tensor.numpy()
            if name not in self._arrays:
                path = self._folder / f'{name}.npy'
                self._arrays[name] = open_memmap(path, 'w+', values.dtype, (self._count, *values.shape[1:]))
            self._arrays[name][first : first + len(values)] = values
        self.done = first + len(values)
        if self.done == self._count or self.done % (16 * _BATCH) == 0:
            for array in self._arrays.values():
                array.flush()  # type: ignore[attr-defined]
            said = {'key': self._key, 'count': self._count, 'done': self.done, 'arrays': list(self._arrays)}
            new = self._progress.with_suffix('.new')
            new.write_text(json.dumps(said), encoding='utf-8')
            new.replace(self._progress)


def _flat(samples: Samples) -> dict[str, Tensor]:
    """All tensors of samples without images, by names."""
    fields = samples._asdict()
    cues, seen = fields.pop('cues'), fields.pop('seen')
    del fields['images']
    named = {f'cue_{name}': tensor for name, tensor in cues._asdict().items()}
    return {**fields, **named, **{f'seen_{i}': tensor for i, tensor in enumerate(seen)}}


def _samples(tensors: dict[str, Tensor]) -> Samples:
    """The samples that ``_flat`` took apart."""
    cues = HandCues(**{name: tensors.pop(f'cue_{name}') for name in HandCues._fields})
    seen = tuple(tensors.pop(name) for name in sorted(n for n in tensors if n.startswith('seen_')))
    return Samples(images=None, cues=cues, seen=seen, **tensors)
