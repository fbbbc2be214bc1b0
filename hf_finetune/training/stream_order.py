"""The order of rows that stay in their files: at random, and yet each chunk of them is read once a pass, by one reader.

A pass takes all chunks in random order, and the rows of each in random order: one long row of rows. It is cut into
lanes, and a step takes its rows from several lanes in turn. Which slots of a step come from which lane is settled by
the step alone; processes have fixed slots, and a loader's workers fixed steps. So each of them goes through lanes of
its own from their beginning to their end, whatever their number, and what a step sees does not depend on it. The open
chunks, one a lane, are the buffer in which rows are shuffled.

The order is a function of (seed, epoch): a resumed run finds its place by counting, in any pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Sampler

from hf_finetune.console import say, warn
from hf_finetune.data.streamed import EACH_STEP, HELD_BYTES, LANES

if TYPE_CHECKING:
    from hf_finetune.data.streamed import StreamedRows

_ACROSS, _TURNS = EACH_STEP, LANES // EACH_STEP  # lanes of a step, and steps until it takes from the same again


class StreamOrder(Sampler[int]):
    """Row numbers of a pass, each once.

    Args:
        ends: rows up to the end of each chunk, (chunks,).
        step: rows of an optimizer's step, over all processes and accumulated batches.
        seed: of the order.
        processes: that share a step; up to 8 do not change the order where they divide it.
        weight: bytes of a chunk in memory, about; of large ones fewer are open.
    """

    def __init__(self, ends: np.ndarray, step: int, seed: int, processes: int = 1, weight: float = 0.0) -> None:
        self.ends = np.asarray(ends, dtype=np.int64)
        self.step, self.seed, self.epoch = step, seed, 0
        self.across = max(n for n in range(1, max(_ACROSS, processes) + 1) if step % n == 0)
        turns = [n for n in (_TURNS, 4, 2) if n * self.across * weight <= HELD_BYTES * max(1, processes / _ACROSS)]
        self.turns = turns[0] if turns else 1

    @classmethod
    def of(cls, rows: StreamedRows, arguments: Any, seed: int) -> StreamOrder:
        """The order of a run.

        Args:
            rows: that train.
            arguments: of the Trainer.
            seed: of the recipe.
        """
        each = arguments.train_batch_size * arguments.gradient_accumulation_steps
        return cls(rows.ends, each * arguments.world_size, seed, arguments.world_size, rows.weight)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data comes next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __iter__(self) -> Iterator[int]:
        steps, each = len(self) // self.step, self.step // self.across
        lengths = [each * len(range(turn, steps, self.turns)) for turn in range(self.turns) for _ in range(self.across)]
        borders = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        rows = _Pass(self.ends, self.seed, self.epoch)
        lanes = [_Lane(rows.between(*borders[at : at + 2])) for at in range(len(lengths))]
        for step in range(steps):
            first = step % self.turns * self.across
            yield from np.concatenate([lane.take(each) for lane in lanes[first : first + self.across]]).tolist()
        for part in rows.between(borders[-1], len(self)):  # fewer than a step
            yield from part.tolist()


def fit_workers(order: StreamOrder, arguments: Any, given: bool) -> None:
    """Let each chunk be read by one loader worker: workers take batches in turn, and their number must go into turns.

    Args:
        order: of the rows.
        arguments: of the Trainer; the number of workers is changed where the recipe does not give one.
        given: whether it does.
    """
    workers, turns = arguments.dataloader_num_workers, order.turns * arguments.gradient_accumulation_steps
    times = workers // math.gcd(workers, turns) if workers else 1
    if times == 1:
        return
    fitting = max(count for count in range(1, workers + 1) if turns % count == 0)
    if given:
        warn(
            f"training.dataloader_num_workers={workers}: each chunk of streamed rows is read by {times} of them; "
            f"with {fitting} it would be read once."
        )
    else:
        arguments.dataloader_num_workers = fitting
        say(f"note: {fitting} loader workers, so that each chunk of streamed rows is read by one of them.")


class _Pass:
    """All rows of a pass in their order; all lanes share its tables, 16 bytes a chunk."""

    def __init__(self, ends: np.ndarray, seed: int, epoch: int) -> None:
        self.ends, self.seed, self.epoch = ends, seed, epoch
        self.order = np.random.default_rng((seed, epoch)).permutation(len(ends))
        self.stops = np.cumsum(np.diff(ends, prepend=0)[self.order])

    def between(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """The rows from `begin` to `end` of the pass, chunk by chunk."""
        place = int(np.searchsorted(self.stops, begin, side="right"))
        while begin < end:
            chunk, stop = int(self.order[place]), int(self.stops[place])
            start = int(self.ends[chunk - 1]) if chunk else 0
            size = int(self.ends[chunk]) - start
            rows = start + np.random.default_rng((self.seed, self.epoch, chunk)).permutation(size)
            first = stop - size
            yield rows[begin - first : end - first]
            begin, place = stop, place + 1


class _Lane:
    """Rows, a few at a time."""

    def __init__(self, parts: Iterator[np.ndarray]) -> None:
        self.parts = parts
        self.left = np.zeros(0, np.int64)

    def take(self, count: int) -> np.ndarray:
        """The next so many."""
        while len(self.left) < count:
            self.left = np.concatenate([self.left, next(self.parts)])
        taken, self.left = self.left[:count], self.left[count:]
        return taken
