"""Which rows of a stream score, and which train: rows from all over a split, without a look at any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.data.shards import RowSource
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data

_PLACES = 64  # of a split that rows are taken from: each costs the reading of a chunk
_MARKED = 10_000_000  # rows that are left out of chunks one by one, at most
_TIMES = 4  # as many rows are in those places as are taken, where there are so many
_STREAMS = {"labels": 11, "held": 12, "validation": 13, "test": 14, "train subset": 15}
Places = dict[int, np.ndarray]  # of chunks, which of their rows, ascending


@dataclass(frozen=True)
class Chosen:
    """Rows of a source.

    Args:
        chunks: in which they are.
        left_out: of a chunk, the rows that are not among them.
    """

    chunks: np.ndarray
    left_out: Places = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What trains and what is held out of it.

    Args:
        train: the rows that train.
        held: by role, the rows of the train split that score.
    """

    train: Chosen
    held: Mapping[str, Places]


def choose(train: RowSource, data: Data, seed: int, most: int) -> Choice:
    """The rows of the train split by what they are for.

    Args:
        train: the split.
        data: its shares and limits.
        seed: of the recipe.
        most: rows of a share, where data.max_eval_samples says nothing.

    Raises:
        DataError: nothing is left to train on.
    """
    total, most = int(train.sizes.sum()), data.max_eval_samples or most
    wanted = {
        role: min(most, max(1, round(share * total)))
        for role, share in (("test", data.test_split), ("validation", data.validation))
        if isinstance(share, float)
    }
    held: Places = all_over(train.sizes, sum(wanted.values()), seed, "held") if wanted else {}
    rows = [(chunk, offset) for chunk, offsets in held.items() for offset in offsets.tolist()]
    order = np.random.default_rng([seed, _STREAMS["held"], 1]).permutation(len(rows))
    shares: dict[str, Places] = {}
    for role, count in wanted.items():
        taken, order = order[:count], order[count:]
        shares[role] = _by_chunk([rows[place] for place in taken])
        if not len(taken):
            raise DataError(f"{total:,} rows are too few for a {role} share: name splits, or say data.streaming=false.")
    left = without(train.sizes, held)
    chosen = Chosen(np.flatnonzero(left > 0), held)
    if data.max_train_samples is not None and data.max_train_samples < left.sum():
        chosen = _limited(train.sizes, left, held, data.max_train_samples, seed)
    if not len(chosen.chunks):
        raise DataError(f"Of {total:,} rows none are left to train on.")
    return Choice(chosen, shares)


def all_over(sizes: np.ndarray, limit: int, seed: int, stream: str) -> Places:
    """At most `limit` random rows, from random chunks: of those as many as are asked for or more can be held.

    Args:
        sizes: rows of each chunk, (chunks,).
        limit: rows.
        seed: of the recipe.
        stream: what the rows are for.
    """
    rng = np.random.default_rng([seed, _STREAMS[stream]])
    order = rng.permutation(np.flatnonzero(sizes > 0))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), _TIMES * limit)) + 1
    counts = _evenly(sizes, order[: max(_PLACES, enough)], limit)
    return {
        chunk: np.sort(rng.choice(int(sizes[chunk]), count, replace=False)) for chunk, count in sorted(counts.items())
    }


def _evenly(sizes: np.ndarray, chunks: np.ndarray, limit: int) -> dict[int, int]:
    """How many rows of each chunk are taken, for `limit` together; what small ones lack, the large ones give."""
    counts: dict[int, int] = {}
    for place, chunk in enumerate(chunks[np.argsort(sizes[chunks], kind="stable")].tolist()):
        count = min(-(-limit // (len(chunks) - place)), int(sizes[chunk]), limit)
        if count:
            counts[chunk] = count
        limit -= count
    return counts


def without(sizes: np.ndarray, held: Places) -> np.ndarray:
    """Rows of each chunk that are left, (chunks,)."""
    left: np.ndarray = sizes.copy()
    for chunk, offsets in held.items():
        left[chunk] -= len(offsets)
    return left


def _limited(sizes: np.ndarray, left: np.ndarray, held: Places, limit: int, seed: int) -> Chosen:
    """Whole chunks at random until there are enough rows; where these would be few, as many rows of each of some more.

    Shards often lie in the order of their classes: a few whole chunks would be of a few classes.
    """
    rng = np.random.default_rng([seed, _STREAMS["train subset"]])
    order = rng.permutation(np.flatnonzero(left > 0))
    ends = np.cumsum(left[order])
    enough = int(np.searchsorted(ends, limit)) + 1
    several = min(_PLACES, len(order), int(_MARKED * len(order) / ends[-1]))
    if enough < several:
        counts = _evenly(left, order[:several], limit)
    else:
        last = int(order[enough - 1])
        counts = {last: int(left[last]) - (int(ends[enough - 1]) - limit)}
    chunks = order[:enough] if enough >= several else np.asarray(list(counts))
    taken = np.isin(list(held), chunks)
    left_out = {chunk: held[chunk] for chunk, is_taken in zip(held, taken.tolist(), strict=True) if is_taken}
    for chunk, count in counts.items():
        every = np.arange(sizes[chunk])
        used = np.delete(every, held.get(chunk, np.zeros(0, np.int64)))
        if count < len(used):
            left_out[chunk] = np.setdiff1d(every, rng.choice(used, count, replace=False))
    return Chosen(np.sort(chunks), left_out)


def _by_chunk(rows: list[tuple[int, int]]) -> Places:
    found: dict[int, list[int]] = {}
    for chunk, offset in sorted(rows):
        found.setdefault(chunk, []).append(offset)
    return {chunk: np.asarray(offsets, dtype=np.int64) for chunk, offsets in found.items()}
