"""Which rows train, validate and test: seeded, stratified, independent of the order of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_finetune.data.groups import hold_out_groups
from hf_finetune.errors import DataError

# One stream of random numbers for each use of the seed, so that changing one of them leaves the others as they are.
_STREAMS = {
    "test share": 1,
    "validation share": 2,
    "train subset": 3,
    "test subset": 4,
    "validation subset": 5,
    "max_per_class": 6,
    "doctor": 7,
    "folds": 8,
}


def subset(rows: np.ndarray, strata: Sequence[int] | None, limit: int | None, seed: int, stream: str) -> np.ndarray:
    """A random subset of at most `limit` rows, every class in proportion and, while the limit lasts, present.

    With the same seed a smaller random choice is a part of a larger one, as nearly as the proportions allow.

    Args:
        rows: row numbers, shape (n,).
        strata: a class for every row of the source (indexed by row number); None for a plain random choice.
        limit: number of rows; None keeps all.
        seed: the recipe's seed.
        stream: what the choice is for.

    Returns:
        sorted row numbers, shape (min(n, limit),).
    """
    if limit is None or limit >= len(rows):
        return rows
    rng = rng_of(seed, stream)
    if strata is None:
        return np.sort(rng.permutation(rows)[:limit])
    groups = _groups(rows, strata)
    sizes = np.array([len(group) for group in groups])
    return _draw(groups, _allocate(sizes, limit, floor=1, ceiling=sizes, rng=rng), rng)


def hold_out(
    rows: np.ndarray,
    strata: Sequence[int] | None,
    share: float,
    seed: int,
    stream: str,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of the rows, every class in proportion; the last row of a class is never held out.

    With `groups`, a number for every row of the source, whole groups are held out: the share, the proportions and a
    class's last row are then met as nearly as they allow.

    Returns:
        sorted row numbers that stay and that are held out; together they are `rows`, and neither is empty.

    Raises:
        DataError: there are too few rows to hold one out.
    """
    if len(rows) < 2:
        raise DataError(f"{len(rows)} row(s) cannot be shared between training and the {stream.split()[0]} split.")
    rng = rng_of(seed, stream)
    if groups is not None:
        return hold_out_groups(rows, strata, share, rng, groups, stream)
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    if strata is None:
        held = np.sort(rng.permutation(rows)[:count])
    else:
        classes = _groups(rows, strata)
        sizes = np.array([len(each) for each in classes])
        count = min(count, int((sizes - 1).sum()))
        if count == 0:
            raise DataError(f"Every class has a single row: no row can be held out for the {stream.split()[0]} split.")
        held = _draw(classes, _allocate(sizes, count, floor=0, ceiling=sizes - 1, rng=rng), rng)
    return np.setdiff1d(rows, held, assume_unique=True), held


def at_most_per_class(rows: np.ndarray, strata: Sequence[int], limit: int, seed: int) -> np.ndarray:
    """At most `limit` random rows of each class, sorted; rows without a class (-1) stay.

    Args:
        rows: row numbers, shape (n,).
        strata: a class for every row of the source (indexed by row number).
        limit: rows a class.
        seed: the recipe's seed.
    """
    rng = rng_of(seed, "max_per_class")
    groups = _groups(rows, strata)
    limits = [limit if strata[group[0]] >= 0 else len(group) for group in groups]
    return _draw(groups, np.array([min(limit, len(group)) for limit, group in zip(limits, groups, strict=True)]), rng)


def rng_of(seed: int, stream: str) -> np.random.Generator:
    """Random numbers of one use of the seed."""
    return np.random.default_rng([seed, _STREAMS[stream]])


def _groups(rows: np.ndarray, strata: Sequence[int]) -> list[np.ndarray]:
    """The rows of each class, classes in order."""
    classes = np.asarray(strata)[rows]
    order = np.argsort(classes, kind="stable")  # one pass, however many classes there are
    starts = np.flatnonzero(np.diff(classes[order])) + 1
    return np.split(rows[order], starts) if len(rows) else []


def _allocate(sizes: np.ndarray, count: int, floor: int, ceiling: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share `count` among classes in proportion to `sizes`, in bounds; remainders to the largest, ties at random."""
    ideal = count * sizes / sizes.sum()
    lowest = np.minimum(floor, ceiling) if floor * len(sizes) <= count else np.zeros_like(sizes)
    given = np.clip(np.floor(ideal).astype(int), lowest, ceiling)
    tie_break = rng.random(len(sizes))
    while (missing := count - int(given.sum())) != 0:
        step = 1 if missing > 0 else -1
        may_change = given < ceiling if step > 0 else given > lowest
        # The classes furthest from their ideal go first, each by one, until the count is met.
        order = np.lexsort((tie_break, -step * (ideal - given)))
        changed = order[may_change[order]][: abs(missing)]
        given[changed] += step
    return given


def _draw(groups: Sequence[np.ndarray], counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = [rng.permutation(group)[:size] for group, size in zip(groups, counts, strict=True)]
    return np.sort(np.concatenate(drawn))
