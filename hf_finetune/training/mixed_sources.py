"""Training rows of several data sets, mixed by weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from torch.utils.data import Sampler

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.data import TaskData


class SourceSampler(Sampler[int]):
    """Row numbers of several data sets, one after the other in the training rows, mixed by weight.

    An epoch has as many draws as there are training rows in all data sets together. Of them each set has its share by
    weight, rounded so that they add up; a set's rows come in shuffled passes that go on from epoch to epoch, so that
    none comes twice before all have come once. The order is a function of (seed, epoch) alone, the same on every
    process and after a resume.

    Args:
        sizes: training rows of each data set.
        weights: of each.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.sizes, self.seed, self.epoch = tuple(sizes), seed, 0
        exact = sum(sizes) * np.asarray(weights, dtype=float) / sum(weights)
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: sum(sizes) - counts.sum()]] += 1
        self.counts = tuple(int(count) for count in counts)
        if 0 in self.counts:
            raise UserError(
                f"Data set {self.counts.index(0) + 1} of {len(sizes)} has too small a weight to be drawn once in an "
                f"epoch of {sum(sizes):,} rows: raise it, or leave the data set out."
            )

    @property
    def rates(self) -> tuple[float, ...]:
        """The share of each data set in an epoch."""
        return tuple(count / sum(self.sizes) for count in self.counts)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data comes next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.sizes)

    def __iter__(self) -> Iterator[int]:
        starts = np.cumsum((0, *self.sizes[:-1]))
        drawn = [self._drawn(place) + start for place, start in enumerate(starts)]
        order = np.random.default_rng((self.seed, len(self.sizes), self.epoch))
        yield from cast(list[int], order.permutation(np.concatenate(drawn)).tolist())

    def _drawn(self, place: int) -> np.ndarray:
        size, count = self.sizes[place], self.counts[place]
        first = self.epoch * count
        passes = range(first // size, (first + count - 1) // size + 1)
        rows = [np.random.default_rng((self.seed, place, number, 1)).permutation(size) for number in passes]
        return np.concatenate(rows)[first % size :][:count]


def order_of_sources(task: TaskData, seed: int) -> SourceSampler | None:
    """The order of the rows where data sets have weights; None where a plain shuffle mixes them by their sizes."""
    sizes, weights = [size for size, _ in task.mixed], [weight for _, weight in task.mixed]
    if len(sizes) < 2 or None in weights:
        return None
    return SourceSampler(sizes, cast(list[float], weights), seed)
