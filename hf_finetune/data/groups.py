"""Rows that belong together (`data.group`): a patient's images, a document's sentences. They are held out together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from hf_finetune.data.columns import nearest
from hf_finetune.data.labels import is_missing
from hf_finetune.errors import DataError


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
    found = []
    for row, value in enumerate(split.with_format(None).select_columns([name])[name]):
        if isinstance(value, (dict, list)):
            raise DataError(f"data.group={name}: the column holds lists or images: name one of texts or numbers.")
        key = f"missing {row}" if is_missing(value) else f"given {value!r}"
        found.append(numbers.setdefault(key, len(numbers)))
    return np.array(found, dtype=np.int64)


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
