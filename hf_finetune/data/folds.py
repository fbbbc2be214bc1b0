"""Folds of the training rows, for cross-validation, and the rows that they have in common."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from hf_finetune.data.checks import Inspection, broken_rows, inspect
from hf_finetune.data.splits import rng_of
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.data.roles import LabeledSplit

POOL = "pool"  # the rows of train before a fold or a validation share is held out of them


def fold_numbers(
    rows: np.ndarray, strata: Sequence[int] | None, count: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """The fold of each row, (n,), from 1 to `count`: of like size, every class in proportion, no group in two folds.

    With groups by scikit-learn's StratifiedGroupKFold, or GroupKFold where there are no classes.

    Args:
        rows: row numbers, shape (n,).
        strata: a class for every row of the source (indexed by row number); None for plain random folds.
        count: number of folds.
        seed: the recipe's seed.
        groups: a number for every row of the source; None where rows are on their own.

    Raises:
        DataError: there are fewer rows or groups than folds.
    """
    units = len(rows) if groups is None else len(np.unique(groups[rows]))
    if units < count:
        what = "rows" if groups is None else "groups (data.group)"
        raise DataError(
            f"{units:,} {what} cannot make {count} folds: give evaluation.cross_validation={max(2, units)}."
        )
    rng = rng_of(seed, "folds")
    classes = None if strata is None else np.asarray(strata)[rows]
    if groups is not None:
        return _of_groups(classes, groups[rows], count, int(rng.integers(2**31)))
    order = rng.permutation(len(rows))
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    # Dealt out like cards, class after class, so that folds differ by one row, and so do their rows of each class.
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = np.arange(len(rows)) % count + 1
    return found


def _of_groups(classes: np.ndarray | None, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    found = np.empty(len(groups), dtype=np.int64)
    stratified = classes is not None and np.bincount(classes - classes.min()).max() >= count
    chosen = StratifiedGroupKFold if stratified else GroupKFold
    with warnings.catch_warnings():  # "the least populated class has only n members": rare classes are what they are
        warnings.simplefilter("ignore", UserWarning)
        parts = chosen(count, shuffle=True, random_state=seed).split(groups, classes if stratified else None, groups)
        for number, (_, held) in enumerate(parts, start=1):
            found[held] = number
    if len(np.unique(found)) < count:
        raise DataError(
            f"The groups (data.group) are too unlike in size for {count} folds: one would be empty. Give fewer folds "
            "with evaluation.cross_validation."
        )
    return found


def look_once(
    chosen: Mapping[str, LabeledSplit], of_train: Sequence[str], channels: int | None = None
) -> dict[str, Inspection]:
    """What is found in each split's rows; where there is a pool, its rows are looked at once for all that are of it.

    Args:
        chosen: by role.
        of_train: roles whose rows are of the pool.
        channels: as `inspect` takes it.
    """
    pool = chosen.get(POOL)
    if pool is None:
        return {role: inspect(split.rows, channels) for role, split in chosen.items()}
    whole = inspect(pool.rows, channels)
    place = {row: number for number, row in enumerate(pool.rows["id"][:])}
    return {
        role: whole.select([place[row] for row in split.rows["id"][:]])
        if role in of_train
        else inspect(split.rows, channels)
        for role, split in chosen.items()
        if role != POOL
    } | {POOL: whole}


def usable(pool: LabeledSplit, looked: Inspection) -> tuple[Dataset, Inspection]:
    """The pool without its broken rows."""
    broken = {row["row"] for row in broken_rows(pool.name, pool.rows, looked, pool.reasons)}
    if not broken:
        return pool.rows, looked
    places = [place for place, row in enumerate(pool.rows["id"][:]) if row not in broken]
    return pool.rows.select(places), looked.select(places)
