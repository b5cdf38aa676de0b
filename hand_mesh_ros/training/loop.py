"""The training loop, the same for every network: on a CPU, a GPU, or several of them under torchrun.

All randomness of a step comes from the seed and the step's number, so that a run which was killed and
resumed computes what an uninterrupted one does.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.networks.weights import save_weights
from hand_mesh_ros.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from hand_mesh_ros.training.configuration import LoopConfiguration
from hand_mesh_ros.training.logs import RunLog
from hand_mesh_ros.training.processes import ProcessGroup, keep_freed_memory

Batch = TypeVar('Batch')


class Objective(Protocol[Batch]):
    """What is trained, on what, and for what."""

    @property
    def network(self) -> nn.Module:
        """What the optimizer moves and what is shipped."""

    @property
    def companions(self) -> nn.Module:
        """Buffers of training alone, to be resumed with the network."""

    @property
    def criterion(self) -> str:
        """The figure of ``evaluate`` that decides which weights are best: low is good."""

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[Batch]:
        """The batches of ``first_step`` and all later ones: this process's share of each.

        The batch of a step depends on nothing but its number and the group. Process i of n has part i of
        n, in order, of what a single process would take as a batch n times as large.
        """

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars: ``loss``, to be made small, and others to be logged.

        ``network`` is ``self.network``, maybe wrapped: call this one.
        """

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Called after the optimizer moved the parameters; the same in all processes."""

    def evaluate(self) -> dict[str, float]:
        """Figures of the network as it is now, on held-out data."""


class Training(Generic[Batch]):
    """One run in one folder: its checkpoints, best weights, logs and configuration."""

    def __init__(
        self,
        objective: Objective[Batch],
        configuration: LoopConfiguration,
        folder: Path,
        group: ProcessGroup,
        description: dict[str, Any],
        settings: dict[str, Any],
    ) -> None:
        """Prepare a run.

        :param description: what JSON can say of the network, written into ``best.safetensors``; only a run
            of the same description can be resumed.
        :param settings: all that was chosen, for the record in ``configuration.yaml``.
        """
        self._objective = objective
        self._configuration = configuration
        self._folder = folder
        self._group = group
        self._description = json.loads(json.dumps(description))  # as a checkpoint will give it back
        self._settings = settings
        if group.device.type == 'cpu':
            keep_freed_memory()
        self._network: nn.Module = objective.network.to(group.device)
        objective.companions.to(group.device)
        if group.size > 1:
            # Buffers change in after_update, alike in all processes
            self._network = DistributedDataParallel(self._network, broadcast_buffers=False)
        self._optimizer = torch.optim.AdamW(
            [p for p in objective.network.parameters() if p.requires_grad],
            lr=configuration.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=configuration.weight_decay,
        )
        self._best_error = math.inf
        self._step = 0

    def run(self, resume: bool) -> bool:
        """Train to the last step. Returns False where SIGTERM ended it early, at a checkpoint.

        :param resume: go on from the newest checkpoint in the folder; begin anew where there is none.
        :raises ConfigurationError: the folder holds a run and ``resume`` is False, or one of another
            network; the loss is no longer finite.
        :raises FileFormatError: a damaged checkpoint.
        """
        self._start(resume)
        log = RunLog(self._folder, self._step, self._settings) if self._group.is_first else None
        try:
            with _sigterm_noted() as sigterm:
                return self._run(log, sigterm)
        finally:
            if log:
                log.close()

    def _run(self, log: RunLog | None, sigterm: list[int]) -> bool:
        c = self._configuration
        batches = self._objective.batches(self._step, self._group)
        started, steps_timed = time.perf_counter(), 0
        while self._step < c.steps:
            losses = self._advance(next(batches))
            steps_timed += 1
            stopping = self._group.any(bool(sigterm))
            last = self._step == c.steps
            logging = last or self._step % c.log_every == 0
            saving = last or stopping or self._step % c.checkpoint_every == 0
            if logging or saving:
                means = self._group.mean({name: float(value) for name, value in losses.items()})
                _require_finite(means['loss'], self._step)
            if logging:
                now = time.perf_counter()
                if log:
                    log.training(self._step, means | {'seconds_per_step': (now - started) / steps_timed})
                started, steps_timed = now, 0
            if last or self._step % c.evaluate_every == 0:
                self._evaluate(log)
                started, steps_timed = time.perf_counter(), 0
            if saving:
                self._save()
            if stopping and not last:
                return False
        return True

    def _advance(self, batch: Batch) -> dict[str, Tensor]:
        c = self._configuration
        rate = learning_rate(c, self._step)
        for parameters in self._optimizer.param_groups:
            parameters['lr'] = rate
        # Of this step and process alone: a resumed run draws what an uninterrupted one does
        torch.manual_seed((c.seed * 1_000_003 + self._step) * self._group.size + self._group.rank)
        self._network.train()
        device = self._group.device.type
        with torch.autocast(device, torch.bfloat16, enabled=c.precision == 'bfloat16'):
            losses = self._objective.losses(self._network, batch)
        self._optimizer.zero_grad(set_to_none=True)
        losses['loss'].backward()
        nn.utils.clip_grad_norm_(self._objective.network.parameters(), c.gradient_clip)
        self._optimizer.step()
        self._objective.after_update(self._step, self._group)
        self._step += 1
        return {name: value.detach() for name, value in losses.items()}

    def _evaluate(self, log: RunLog | None) -> None:
        # By the first process alone: the others wait at the next step's gradient
        if not self._group.is_first:
            return
        self._objective.network.eval()
        with torch.no_grad():
            figures = self._objective.evaluate()
        if log:
            log.evaluation(self._step, figures)
        if figures[self._objective.criterion] < self._best_error:
            self._best_error = figures[self._objective.criterion]
            save_weights(
                self._folder / 'best.safetensors',
                self._objective.network,
                self._description | {'step': self._step, 'figures': figures},
            )

    def _start(self, resume: bool) -> None:
        checkpoint = load_checkpoint(self._checkpoints)
        if checkpoint is None:
            return
        if not resume:
            raise ConfigurationError(
                f'{self._folder}: holds a run already: --resume, or choose another folder'
            )
        if checkpoint.state['description'] != self._description:
            raise ConfigurationError(
                f'{self._folder}: its checkpoint is of {checkpoint.state["description"]}, '
                f'this configuration of {self._description}: choose another folder'
            )
        _modules(self._objective).load_state_dict(checkpoint.tensors)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._step = checkpoint.state['step']
        self._best_error = checkpoint.state['best_error']

    def _save(self) -> None:
        if self._group.is_first:
            tensors = dict(_modules(self._objective).state_dict())
            state = {
                'step': self._step,
                'best_error': self._best_error,
                'description': self._description,
            }
            checkpoint = Checkpoint(tensors, self._optimizer.state_dict(), state)
            save_checkpoint(self._checkpoints, self._step, checkpoint)

    @property
    def _checkpoints(self) -> Path:
        return self._folder / 'checkpoints'


def learning_rate(configuration: LoopConfiguration, step: int) -> float:
    """Rate of one step, 0 to steps - 1: a straight rise, then half a cosine down to zero."""
    c = configuration
    if step < c.warmup_steps:
        return c.learning_rate * (step + 1) / c.warmup_steps
    share = (step - c.warmup_steps) / max(1, c.steps - c.warmup_steps)
    return c.learning_rate * (1 + math.cos(math.pi * share)) / 2


def _require_finite(loss: float, step: int) -> None:
    # Before a checkpoint is written: one with broken weights must not replace a sound one
    if not math.isfinite(loss):
        raise ConfigurationError(f'the loss is {loss} at step {step}: lower learning_rate, and resume')


def _modules(objective: Objective[Any]) -> nn.ModuleDict:
    return nn.ModuleDict({'network': objective.network, 'companions': objective.companions})


@contextmanager
def _sigterm_noted() -> Iterator[list[int]]:
    """A list that SIGTERM adds to instead of ending the process."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
