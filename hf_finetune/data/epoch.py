"""Random changes of a sample that depend on (seed, epoch, row) and nothing else.

Not on workers, processes or where a run was resumed: a resumed epoch sees the same samples as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class Epoch:
    """The number of an epoch, in shared memory, so that loader workers that outlive an epoch see the next one."""

    def __init__(self) -> None:
        self._number = torch.zeros((), dtype=torch.int64).share_memory_()

    def set(self, number: int) -> None:
        """Begin an epoch."""
        self._number.fill_(number)

    def __int__(self) -> int:
        return int(self._number)


def generator_of(seed: int, epoch: int, row: int) -> np.random.Generator:
    """The random numbers of one row in one epoch."""
    return np.random.default_rng([seed, epoch, row])


@contextmanager
def torch_random(seed: int) -> Iterator[None]:
    """Random numbers of torch on the CPU from `seed`; afterwards torch goes on as if nothing had been drawn.

    torchvision draws from the global generator alone. `torch.random.fork_rng` and `torch.manual_seed` would reseed
    GPUs too, and cost more than the 2 microseconds of this.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
