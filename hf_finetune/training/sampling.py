"""Balanced sampling: every class is drawn equally often, and an epoch keeps its length.

The order is a function of (seed, epoch) alone, the same on every process; accelerate then deals its batches out in
turn. So two processes with batches of 8 see what one with batches of 16 sees, and a resumed run what an uninterrupted
one sees. torch's WeightedRandomSampler draws from a generator whose state depends on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from hf_finetune.errors import UserError


class BalancedSampler(Sampler[int]):
    """Row numbers in which each class that occurs has N / C places of an epoch of N rows.

    Stratified, not drawn one by one: a class has exactly floor or ceil of N / C places (which classes get the odd ones
    is drawn anew each epoch), and repeats a row only after all its rows have come.

    Args:
        labels: (N,) class ids of the training rows.
        seed: of the order.

    Raises:
        UserError: labels that are not one class a row.
    """

    def __init__(self, labels: Any, seed: int) -> None:
        array = np.asarray(labels)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise UserError("loss.sampling=balanced needs one class a row: use shuffle.")
        self.rows = [np.flatnonzero(array == number) for number in np.unique(array)]
        self.length = len(array)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data comes next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        places = np.full(len(self.rows), self.length // len(self.rows))
        places[generator.permutation(len(self.rows))[: self.length % len(self.rows)]] += 1
        drawn = [_drawn(rows, count, generator) for rows, count in zip(self.rows, places, strict=True)]
        yield from generator.permutation(np.concatenate(drawn)).tolist()


def _drawn(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """So many of the rows, each once before any twice."""
    rounds = -(-count // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)] or [rows[:0]])[:count]
