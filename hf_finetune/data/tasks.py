"""From the `tasks:` of a recipe to checked splits: each holds the rows of every data set, one set after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, DatasetDict, Value, concatenate_datasets

from hf_finetune.data.checks import Inspection, count_copies, inspect
from hf_finetune.data.cleaning import Cleaning
from hf_finetune.data.legible import bad_bytes_named
from hf_finetune.data.load import TaskData, fingerprint_of, leave_out_broken
from hf_finetune.data.ranks import first_on_each_machine
from hf_finetune.data.roles import ROLES, choose_rows
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.data.task_sources import TaskSource, encode_source, open_sources, spaces_of
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

SOURCE = "source"  # column of the splits: the data set of a row, where there are several


@dataclass(frozen=True)
class _Read:
    """One data set, its rows chosen and looked at."""

    source: TaskSource
    kept: dict[str, Dataset]
    looked: dict[str, Inspection]
    skipped: list[dict[str, Any]]
    cleaning: Cleaning | None


def load_tasks(recipe: Recipe, source: Dataset | DatasetDict | None = None) -> TaskData:
    """Open, split and check the data sets of a recipe with tasks; as `load_data`, whose result has packed labels.

    Each data set is split by itself: stratified by the first of its tasks with one class a row, and by none where
    there is no such task.

    Raises:
        DataError: the data cannot be used as it is, or the recipe does not fit it.
        UserError: the network or a package is missing.
    """
    with first_on_each_machine():
        sources = open_sources(recipe, source)
        with bad_bytes_named({f"{each.name} {role}": rows for each in sources for role, rows in each.splits.items()}):
            found = {name: space for each in sources for name, space in spaces_of(each).items()}
            labels = ManyLabels.of({name: found[name] for name in recipe.tasks})
            read = [_read(recipe, each, labels) for each in sources]
    _refuse_mixed_inputs(read)
    kept = {role: _joined([(each.source, each.kept[role]) for each in read if role in each.kept]) for role in ROLES}
    several = len(read) > 1
    coloured = np.concatenate([each.looked["train"].coloured for each in read])
    classes = all(part.space.problem_type != "regression" for part in labels.tasks)
    prints = [fingerprint_of(each.kept, each.looked, labels) for each in read]
    assert kept["train"] is not None and kept["validation"] is not None
    return TaskData(
        train=kept["train"],
        validation=kept["validation"],
        test=kept["test"],
        labels=labels,
        columns=read[0].source.columns,
        natural_images=classes and float(np.mean(coloured)) >= 0.5,
        skipped=[{**({"dataset": e.source.name} if several else {}), **row} for e in read for row in e.skipped],
        warnings=_warnings(read, kept, labels),
        fingerprint=hashlib.blake2b("\n".join(prints).encode(), digest_size=16).hexdigest() if several else prints[0],
        cleaning=read[0].cleaning,
        mixed=tuple((len(each.kept["train"]), each.source.data.weight) for each in read),
    )


def _read(recipe: Recipe, source: TaskSource, labels: ManyLabels) -> _Read:
    data = source.data
    splits = encode_source(source, labels)
    cleaning = None if data.clean is None else Cleaning(data.clean, labels, recipe.data_seed, recipe.model.in_channels)
    chosen = choose_rows(splits, labels, data, recipe.data_seed, cleaning)
    if not recipe.evaluation.test:
        chosen.pop("test", None)
    looked = {role: inspect(split.rows, recipe.model.in_channels) for role, split in chosen.items()}
    return _Read(source, *leave_out_broken(chosen, looked, data.on_error), cleaning)


def _joined(parts: Sequence[tuple[TaskSource, Dataset]]) -> Dataset | None:
    """The rows of all data sets; with a column that names them where there are several."""
    if len(parts) < 2:
        return parts[0][1] if parts else None
    named = [rows.add_column(SOURCE, [each.name] * len(rows), feature=Value("string")) for each, rows in parts]
    return concatenate_datasets(named)


def _refuse_mixed_inputs(read: Sequence[_Read]) -> None:
    pairs = {each.source.name: each.source.columns.text_pair is not None for each in read}
    if len(set(pairs.values())) > 1:
        single = [name for name, paired in pairs.items() if not paired]
        raise DataError(
            f"Some data sets hold pairs of texts and some single texts ({', '.join(single)}), and one model reads one "
            "kind: give text_pair for all or for none."
        )


def _warnings(read: Sequence[_Read], kept: Mapping[str, Dataset | None], labels: ManyLabels) -> list[str]:
    lines = []
    learnt = [digest for each in read for role in ("train", "validation") for digest in each.looked[role].digests]
    tested = [digest for each in read if "test" in each.looked for digest in each.looked["test"].digests]
    if copies := count_copies(learnt, tested):
        lines.append(
            f"{copies:,} of {len(tested):,} test rows are exact copies of training or validation rows: the test score "
            "may flatter the model."
        )
    for part in labels.tasks:
        for role, rows in kept.items():
            packed = np.asarray(rows["label"][:] if rows is not None else [])
            if rows is None:
                continue
            present = packed[part.labelled(packed)]
            if not len(present):
                lines.append(f"No {role} row has a label of the task {part.name}.")
            elif role == "train" and part.is_class:
                absent = set(range(part.space.num_labels)) - set(part.of(present).tolist())
                names = ", ".join(part.space.names[place] for place in sorted(absent)[:10])
                if absent:
                    lines.append(f"{len(absent):,} classes of the task {part.name} have no training row: {names}.")
    return lines
