"""The processes of one training run: one alone, or several started by torchrun."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

#: How long a process waits for another, which may be evaluating, or making samples.
_TIMEOUT = timedelta(hours=3)

#: Names of two settings in GNU's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that evaluates and writes."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes; returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over all processes of numbers that have the same names in each."""
        total = self.sum_(torch.tensor(list(values.values()), dtype=torch.float32, device=self.device))
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def any(self, value: bool) -> bool:
        """Whether the value is true in any process."""
        if self.size == 1:
            return value
        return bool(self.sum_(torch.tensor(float(value), device=self.device)))


def keep_freed_memory() -> None:
    """Let this process's allocator keep what it gets back, for the next step to take again.

    The C library's own way of handing large blocks back to the system at once costs a CPU half its time here.
    Without effect on other C libraries than GNU's.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, over nccl on GPUs and gloo on CPUs; alone without it."""
    size, rank = int(os.environ.get('WORLD_SIZE', 1)), int(os.environ.get('RANK', 0))
    device = torch.device('cpu')
    if torch.cuda.is_available():
        device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', timeout=_TIMEOUT)
    try:
        yield ProcessGroup(rank, size, device)
        if size > 1:
            # torchrun takes the end of one for the end of all: the first may still be writing
            dist.barrier()
    finally:
        if size > 1:
            # Without this some processes ended with SIGABRT after their work: DDP's wrapper is in cycles,
            # and while it lives, so, it seems, do threads of the group.
            gc.collect()
            dist.destroy_process_group()
