"""What trains, validates and tests: the splits a recipe names, encoded, and their rows chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Image, List, Value

from hf_finetune.data.bands import encode_arrays, holds_arrays
from hf_finetune.data.columns import Columns
from hf_finetune.data.folds import POOL, fold_numbers
from hf_finetune.data.groups import groups_of
from hf_finetune.data.hub_paths import refuse_text_of_hub
from hf_finetune.data.label_columns import RawLabels, encode_labels, find_label_space, read_labels
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.shown import shown
from hf_finetune.data.sources import take_split
from hf_finetune.data.splits import hold_out, subset
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.data.cleaning import Cleaning
    from hf_finetune.recipes.schema import Data

# Names that a source does not use, until its own columns are left out.
_ID, _LABEL = "__hf_finetune_id__", "__hf_finetune_label__"
ROLES = ("train", "validation", "test", "held_out")


@dataclass(frozen=True)
class LabeledSplit:
    """A split in canonical columns, with its labels encoded.

    Args:
        name: the split's name in the source.
        rows: columns id, image or text (and text_pair), label.
        targets: the label of every row of the source; None where there is none.
        reasons: why rows of the source have no target.
        groups: a number for every row of the source, equal for rows that belong together; None where none do.
    """

    name: str
    rows: Dataset
    targets: list[Any]
    reasons: dict[int, str]
    groups: np.ndarray | None = None

    def strata(self, labels: LabelSpace) -> list[int] | None:
        """A class for every row, -1 where the label is missing; None where there are no classes to stratify by."""
        return labels.strata(self.targets)


def encode_splits(
    splits: Mapping[str, Dataset], data: Data, columns: Columns
) -> tuple[LabelSpace, dict[str, LabeledSplit]]:
    """The label space, and the splits the recipe names with their labels encoded, by role."""
    named = {"train": data.train_split, "validation": data.validation, "test": data.test_split}
    keys = {"train": "data.train_split", "validation": "data.validation", "test": "data.test_split"}
    found = {role: take_split(splits, name, keys[role]) for role, name in named.items() if isinstance(name, str)}
    raw = {role: labels_of(split, str(named[role]), columns) for role, split in found.items()}
    labels = find_label_space(raw["train"], columns.label, data.problem_type)
    encoded = {
        role: _encode(split, str(named[role]), raw[role], columns, labels, "the train split has not")
        for role, split in found.items()
    }
    if data.group is not None:
        encoded["train"] = replace(encoded["train"], groups=groups_of(found["train"], data.group))
    return labels, encoded


def encode_for(labels: LabelSpace, split: Dataset, name: str, columns: Columns) -> LabeledSplit:
    """One split, encoded in the labels that a finished model knows."""
    listed = ", ".join(map(shown, labels.names[:20])) + (
        f", ... ({labels.num_labels:,})" if labels.num_labels > 20 else ""
    )
    stranger = f"the model does not know (it knows: {listed})"
    raw = labels_of(split, name, columns)
    return _encode(split, name, respelled(raw, labels.names), columns, as_written(labels, raw), stranger)


def as_written(labels: LabelSpace, raw: RawLabels) -> LabelSpace:
    """A model's labels, as multi-hot where they have no names but numbers and the column has a 0 or 1 for each."""
    if raw.multi_hot_width == labels.num_labels and labels.names == tuple(map(str, range(labels.num_labels))):
        return replace(labels, multi_hot=True)
    return labels


def respelled(raw: RawLabels, names: Sequence[str]) -> RawLabels:
    """Classes by the model's spelling (`names`) where only upper and lower case differ."""
    known = {name.casefold(): name for name in names}
    if len(known) < len(names):
        return raw

    def respell(value: Any) -> Any:
        if isinstance(value, list):
            return [respell(item) for item in value]
        return known.get(value.casefold(), value) if isinstance(value, str) else value

    return replace(raw, values=[respell(value) for value in raw.values])


def _encode(
    split: Dataset, name: str, raw: RawLabels, columns: Columns, labels: LabelSpace, stranger: str
) -> LabeledSplit:
    targets, reasons, unknown = encode_labels(raw, labels)
    if unknown:
        known = [f"'{shown(label)}' ({count:,} rows)" for label, count in sorted(unknown.items())]
        listed = ", ".join(known[:10]) + (f", ... ({len(known):,} labels)" if len(known) > 10 else "")
        first = next(row for row, target in enumerate(targets) if target is None and row not in reasons)
        raise DataError(
            f"The split {name} has labels that {stranger}: {listed}. The first is in row {first} (counted from 0). "
            "Mend them, or leave those rows out."
        )
    if len(reasons) == len(targets):
        raise DataError(
            f"The split {name} has no labels: all {len(targets):,} rows of '{columns.label}' are missing or unusable "
            f"({next(iter(reasons.values()))}). Name another split."
        )
    return LabeledSplit(name, canonical_rows(split, columns, targets, labels), targets, reasons)


def labels_of(split: Dataset, name: str, columns: Columns) -> RawLabels:
    """The label column of a split as it stands.

    Raises:
        DataError: a column is missing, or cannot hold labels.
    """
    wanted = [column for column in (columns.image, columns.text, columns.text_pair, columns.label) if column]
    if missing := [column for column in wanted if column not in split.column_names]:
        raise DataError(
            f"The split {name} has no column '{missing[0]}'. Its columns are: {', '.join(split.column_names)}."
        )
    return read_labels(split, columns.label)


def canonical_rows(split: Dataset, columns: Columns, targets: Sequence[Any], labels: LabelSpace) -> Dataset:
    """The split with the columns id, image or text (and text_pair), label; content is neither copied nor decoded.

    Args:
        split: as it stands in the source.
        columns: names of the inputs in it.
        targets: a label for each row; None where there is none.
        labels: decides the type of the label column.

    Raises:
        DataError: the image is a path that a stranger wrote.
    """
    inputs = {getattr(columns, role): role for role in ("image", "text", "text_pair") if getattr(columns, role)}
    number = Value("int64") if labels.problem_type == "single_label_classification" else Value("float64")
    is_vector = any(isinstance(target, list) for target in targets)
    rows = split.with_format(None)
    if columns.image:
        refuse_text_of_hub(rows, columns.image)
        # Before columns are left out: `cast` loses the rows of a joined table if one of its parts has no column left.
        if holds_arrays(rows.features[columns.image]):
            rows = encode_arrays(rows, columns.image)
        rows = rows.cast_column(columns.image, Image(decode=False))
    rows = rows.add_column(_ID, np.arange(len(rows)), feature=Value("int64"))
    rows = rows.add_column(_LABEL, list(targets), feature=List(number) if is_vector else number)
    return rows.select_columns([_ID, *inputs, _LABEL]).rename_columns({_ID: "id", **inputs, _LABEL: "label"})


def choose_rows(
    sources: Mapping[str, LabeledSplit],
    labels: LabelSpace,
    data: Data,
    seed: int,
    cleaning: Cleaning | None = None,
    pooled: bool = False,
) -> dict[str, LabeledSplit]:
    """The rows of each role: test is held out first, then train is limited and cleaned, then validation is held out.

    `cleaning` drops rows of train alone, and keeps the account of it. `data.fold` is held out before validation is;
    where `pooled`, the rows that all folds have in common are a role beside the others.
    """
    train = sources["train"]
    strata, groups = train.strata(labels), train.groups
    rows = np.arange(len(train.rows))
    chosen: dict[str, tuple[LabeledSplit, np.ndarray]] = {}
    if isinstance(data.test_split, float):
        rows, held = hold_out(rows, strata, data.test_split, seed, "test share", groups)
        chosen["test"] = (train, subset(held, strata, data.max_eval_samples, seed, "test subset"))
    rows = subset(rows, strata, data.max_train_samples, seed, "train subset")
    named = {
        role: limit_rows(sources[role], labels, data.max_eval_samples, seed, f"{role} subset")
        for role in ("validation", "test")
        if role in sources
    }
    if cleaning is not None:
        rows = cleaning.before_validation(_select(train, rows), named.get("validation"))
    if pooled:
        chosen[POOL] = (train, rows)
    if data.fold is not None:
        place, count = data.fold
        held_out = fold_numbers(rows, strata, count, seed, groups) == place
        chosen["held_out"] = (train, rows[held_out])
        rows = rows[~held_out]
    if isinstance(data.validation, float):
        rows, held = hold_out(rows, strata, data.validation, seed, "validation share", groups)
        chosen["validation"] = (train, held)
    if cleaning is not None:
        rows = cleaning.after_validation(_select(train, rows))
    chosen["train"] = (train, rows)
    return {role: _select(source, taken) for role, (source, taken) in chosen.items()} | named


def limit_rows(source: LabeledSplit, labels: LabelSpace, limit: int | None, seed: int, stream: str) -> LabeledSplit:
    """The split, or a random stratified subset of it."""
    rows = subset(np.arange(len(source.rows)), source.strata(labels), limit, seed, stream)
    return _select(source, rows)


def _select(source: LabeledSplit, rows: np.ndarray) -> LabeledSplit:
    return replace(source, rows=source.rows.select(rows))
