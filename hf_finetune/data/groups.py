"""Rows that belong together (`data.group`): a patient's images, a document's sentences. They are held out together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from hf_finetune.data.columns import nearest
from hf_finetune.data.labels import is_missing
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data


def groups_of(split: Dataset, name: str) -> np.ndarray:
    """A number for each row, (N,), equal where the column's values are; a row without a value is a group of its own.

    Raises:
        DataError: there is no such column, or it holds no plain values.
    """
    if name not in split.column_names:
        raise DataError(
            f"data.group={name}: there is no such column.{nearest(name, split.column_names)} The columns are: "
            f"{', '.join(split.column_names)}."
        )
    numbers: dict[str, int] = {}
    keys = (f"missing {row}" if value is None else f"given {value}" for row, value in enumerate(_values(split, name)))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def groups_in_common(splits: Mapping[str, Dataset], data: Data, roles: Collection[str]) -> list[str]:
    """A line for each split that the recipe names and that shares groups with train: those are nobody's to move.

    Args:
        splits: of the source.
        data: the section, its splits settled.
        roles: that are read at all: a test split may be set apart.
    """
    if data.group is None:
        return []
    own = set(_values(splits[data.train_split], data.group)) - {None}
    lines = []
    for role, name in (("validation", data.validation), ("test", data.test_split)):
        if role in roles and isinstance(name, str) and data.group in splits[name].column_names:
            others = set(_values(splits[name], data.group)) - {None}
            if common := len(own & others):
                lines.append(
                    f"data.group={data.group}: {common:,} of the {len(others):,} groups of the {role} split {name} are "
                    f"in {data.train_split} too: its score is not one of new groups. A share of train "
                    f"(data.{role if role == 'validation' else 'test_split'}=0.2) would be."
                )
    return lines


def _values(split: Dataset, name: str) -> Iterator[str | None]:
    """The column's values as texts, equal where they are; whole numbers alike, also where some are missing."""
    for value in split.with_format(None).select_columns([name])[name]:
        if isinstance(value, (dict, list)):
            raise DataError(f"data.group={name}: the column holds lists or images: name one of texts or numbers.")
        whole = isinstance(value, float) and value.is_integer()
        yield None if is_missing(value) else repr(int(value) if whole else value)


def hold_out_groups(
    rows: np.ndarray,
    strata: Sequence[int] | None,
    share: float,
    rng: np.random.Generator,
    groups: np.ndarray,
    stream: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Whole groups whose rows are about the share of each class: in random order, each that brings them nearer to it.

    Args:
        rows: row numbers, shape (n,).
        strata: a class for every row of the source; None for none.
        share: of the rows.
        rng: decides the order.
        groups: a number for every row of the source.
        stream: what the share is for.

    Returns:
        sorted row numbers that stay and that are held out; neither is empty.

    Raises:
        DataError: there is a single group.
    """
    own = groups[rows]
    classes = np.zeros(len(rows), dtype=np.int64) if strata is None else np.asarray(strata)[rows]
    _, inverse = np.unique(own, return_inverse=True)
    _, kinds = np.unique(classes, return_inverse=True)
    counts = np.zeros((inverse.max() + 1, kinds.max() + 1))
    np.add.at(counts, (inverse, kinds), 1)
    if len(counts) < 2:
        raise DataError(
            f"All {len(rows):,} rows are of one group (data.group): nothing can be held out for the "
            f"{stream.split()[0]} split."
        )
    wanted, taken = share * counts.sum(axis=0), np.zeros(counts.shape[1])
    chosen: list[int] = []
    for group in rng.permutation(len(counts)):
        nearer = np.abs(taken + counts[group] - wanted).sum() < np.abs(taken - wanted).sum()
        if nearer and len(chosen) < len(counts) - 1:
            chosen.append(int(group))
            taken += counts[group]
    if not chosen:  # every group is larger than what is wanted: the smallest
        chosen = [int(counts.sum(axis=1).argmin())]
    held = np.isin(inverse, chosen)
    return rows[~held], rows[held]
