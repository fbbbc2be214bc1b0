"""The data sets of several tasks: the recipe's own, and those that tasks bring; label columns, read and packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset, DatasetDict

from hf_finetune.data.columns import Columns, find_columns, nearest
from hf_finetune.data.label_columns import RawLabels, encode_labels, find_label_space, read_labels
from hf_finetune.data.labels import LabelSpace, Target, is_missing
from hf_finetune.data.roles import LabeledSplit, canonical_rows
from hf_finetune.data.sources import open_source, take_split
from hf_finetune.data.split_names import settle_splits
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.errors import DataError
from hf_finetune.recipes.tasks_section import PROBLEM_OF

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data, Recipe, TaskSettings

_KEYS = {"train": "data.train_split", "validation": "data.validation", "test": "data.test_split"}


@dataclass(frozen=True)
class TaskSource:
    """One data set and the tasks whose labels are in it.

    Args:
        data: how it is read; splits settled.
        tasks: of the recipe, by name.
        columns: where image or text are.
        splits: those that are used, by role.
    """

    data: Data
    tasks: Mapping[str, TaskSettings]
    columns: Columns
    splits: Mapping[str, Dataset]

    @property
    def name(self) -> str:
        """Which data set it is, in one word."""
        given = self.data.dataset
        return given if isinstance(given, str) else ", ".join(given)


def open_sources(recipe: Recipe, source: Dataset | DatasetDict | None = None) -> list[TaskSource]:
    """The recipe's data set, or `source`, and those of its tasks; tasks that name the same one share it.

    Raises:
        DataError: a data set cannot be read, or lacks a column.
        UserError: the network or a package is missing.
    """
    groups: list[tuple[Data, dict[str, TaskSettings]]] = [(recipe.data, {})]
    for name, task in recipe.tasks.items():
        data = recipe.data if task.data is None else recipe.data.model_copy(update=dict(task.data))
        own = next((tasks for known, tasks in groups if known == data), None)
        if own is None:
            groups.append((data, own := {}))
        own[name] = task
    found = []
    for number, (data, tasks) in enumerate(groups):
        splits = open_source(data, source if number == 0 else None)
        data = settle_splits(data, splits, recipe.evaluation.test)
        named = {"train": data.train_split, "validation": data.validation, "test": data.test_split}
        used = {r: take_split(splits, name, _KEYS[r]) for r, name in named.items() if isinstance(name, str)}
        for role, split in used.items():
            need_columns(split, str(named[role]), [(f"tasks.{name}.label", task.label) for name, task in tasks.items()])
        found.append(TaskSource(data, tasks, input_columns(used["train"], recipe.task, data, tasks), used))
    return found


def need_columns(split: Dataset, name: str, wanted: Sequence[tuple[str, str]]) -> None:
    """Raise a DataError that names the key of the first column which the split has not."""
    for key, column in wanted:
        if column not in split.column_names:
            raise DataError(
                f"{key}={column}: the split {name} has no such column.{nearest(column, split.column_names)} Its "
                f"columns are: {', '.join(split.column_names)}."
            )


def input_columns(split: Dataset, task: str, data: Data, tasks: Mapping[str, TaskSettings]) -> Columns:
    """Where image or text are: a column of labels is none of them."""
    labels = list(dict.fromkeys(settings.label for settings in tasks.values()))
    rest = split.remove_columns(labels[1:])
    return find_columns(rest, task, data.model_copy(update={"label": labels[0]}))


def spaces_of(source: TaskSource) -> dict[str, tuple[str, LabelSpace]]:
    """What each task answers, from the train split, with its label column."""
    found = {}
    for name, task in source.tasks.items():
        try:
            raw = read_labels(source.splits["train"], task.label)
            space = find_label_space(raw, task.label, PROBLEM_OF[task.type] if task.type else None)
        except DataError as error:
            raise DataError(_in_words_of_tasks(str(error), name)) from None
        found[name] = (task.label, space)
    return found


def encode_source(source: TaskSource, labels: ManyLabels) -> dict[str, LabeledSplit]:
    """The splits of a data set, by role, with the labels of its tasks packed."""
    names = {"train": source.data.train_split, "validation": source.data.validation, "test": source.data.test_split}
    columns = {name: task.label for name, task in source.tasks.items()}
    return {
        role: encode_tasks(split, str(names[role]), source.columns, columns, labels, "the train split has not")
        for role, split in source.splits.items()
    }


def encode_tasks(
    split: Dataset,
    name: str,
    columns: Columns,
    tasks: Mapping[str, str],
    labels: ManyLabels,
    stranger: str,
    raw: Mapping[str, RawLabels] | None = None,
) -> LabeledSplit:
    """One split with packed labels. A label that is missing counts for no task; a row without any has no target.

    Args:
        split: as it stands in the source.
        name: of the split.
        columns: where image or text are.
        tasks: label columns by the names of their tasks.
        labels: of all tasks.
        stranger: who does not know a class that is not among the labels.
        raw: the label columns, where they are read already.

    Raises:
        DataError: a class is unknown, or no row has a label.
    """
    targets: list[dict[str, Target | None]] = [{} for _ in range(len(split))]
    reasons: dict[int, str] = {}
    for part in labels.tasks:
        if part.name not in tasks:
            continue
        values = raw[part.name] if raw else read_labels(split, tasks[part.name])
        encoded, why, unknown = encode_labels(values, part.space)
        if unknown:
            listed = ", ".join(f"'{label}' ({count:,} rows)" for label, count in sorted(unknown.items())[:10])
            raise DataError(f"The split {name} has labels of the task {part.name} that {stranger}: {listed}.")
        for row, target in enumerate(encoded):
            targets[row][part.name] = target
        reasons |= {row: f"{part.name}: {text}" for row, text in why.items() if not is_missing(values.values[row])}
    packed = [labels.pack(row) for row in targets]
    for row, target in enumerate(packed):
        if target is None:
            reasons.setdefault(row, "it has no label of any task")
        elif row in reasons:
            packed[row] = None
    if len(reasons) == len(packed):
        raise DataError(
            f"The split {name} has no labels: all {len(packed):,} rows of {', '.join(tasks.values())} are missing or "
            "unusable. Name another split."
        )
    return LabeledSplit(name, canonical_rows(split, columns, packed, labels), packed, reasons)


def _in_words_of_tasks(message: str, name: str) -> str:
    """A fault of a label column, by the keys that a task has."""
    for settings, problem in PROBLEM_OF.items():
        message = message.replace(problem, settings)
    return message.replace("data.problem_type", f"tasks.{name}.type").replace("data.label", f"tasks.{name}.label")
