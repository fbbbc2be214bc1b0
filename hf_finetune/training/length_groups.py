"""Texts of like length in one batch, so that little of it is padding; which texts meet is still a matter of chance.

Each epoch shuffles the rows, takes them fifty batches' worth at a time, sorts those by length, and shuffles the
batches. Any text may so meet any of like length, and batches of all lengths come in any order. As for the balanced
order, the epoch's rows are a function of (seed, epoch) alone, the same on every process and after a resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

_BATCHES = 50  # sorted together


class LengthGroups(Sampler[int]):
    """Row numbers in which each batch of the run has rows of like length.

    The batch with the longest text comes first: memory that does not suffice shows at once. The rows that are left over
    at the end of an epoch are any, not the shortest.

    Args:
        lengths: of each row, (N,).
        batch: rows of an optimizer step, over all processes and accumulated batches.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data comes next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        whole, left = np.split(order, [len(order) // self.batch * self.batch])
        chunks = np.split(whole, range(_BATCHES * self.batch, len(whole), _BATCHES * self.batch))
        by_length = [chunk[np.argsort(-self.lengths[chunk], kind="stable")] for chunk in chunks]
        batches = generator.permutation(np.concatenate(by_length).reshape(-1, self.batch))
        if len(batches):
            longest = int(self.lengths[batches].max(axis=1).argmax())
            batches[[0, longest]] = batches[[longest, 0]]
        rows: list[int] = np.concatenate([batches.ravel(), left]).tolist()
        yield from rows


def length_groups(samples: Any, args: Any, seed: int) -> LengthGroups | None:
    """The order of a run's texts; None for what has no lengths.

    Args:
        samples: the training samples, with `lengths` (N,) if they are texts.
        args: the Trainer's arguments.
        seed: of the order.
    """
    lengths = getattr(samples, "lengths", None)
    if lengths is None:
        return None
    return LengthGroups(lengths, args.train_batch_size * args.world_size * args.gradient_accumulation_steps, seed)
