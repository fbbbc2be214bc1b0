"""The rows that a finished model of several tasks is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict

from hf_finetune.data.checks import inspect
from hf_finetune.data.label_columns import RawLabels, read_labels
from hf_finetune.data.load import leave_out_broken
from hf_finetune.data.ranks import first_on_each_machine
from hf_finetune.data.roles import as_written, limit_rows, respelled
from hf_finetune.data.scored_rows import with_columns_of
from hf_finetune.data.sources import open_source, take_split
from hf_finetune.data.split_names import split_to_score
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.data.task_sources import encode_tasks, input_columns
from hf_finetune.data.tasks import load_tasks
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data, Recipe, TaskSettings


def load_task_test(
    recipe: Recipe,
    labels: ManyLabels,
    source: Dataset | DatasetDict | None = None,
    *,
    trained_by: Data | None = None,
    own: bool = False,
) -> tuple[Dataset, list[dict[str, Any]]]:
    """The test rows with packed labels; see `load_test`. Other data is scored for the tasks whose label column it has.

    Raises:
        DataError: no test split, labels that the model does not know, none of its label columns, or one that means
            different labels to different tasks.
    """
    if own:
        task = load_tasks(recipe, source)
        if _known(task.labels) != _known(labels):
            raise DataError("The labels of the data are not those that the model was trained on.")
        if task.test is None:
            raise DataError("data.test_split is null: say data.test_split=NAME for the split to evaluate on.")
        return task.test, task.skipped
    data = recipe.data
    if isinstance(data.test_split, float):
        raise DataError(f"data.test_split={data.test_split}: other data is scored by a split's name.")
    with first_on_each_machine():
        splits = open_source(data, source)
        name = split_to_score(data, splits)
        split = take_split(splits, name, "data.test_split")
        tasks = {task: settings for task, settings in recipe.tasks.items() if settings.label in split.column_names}
        if not tasks:
            wanted = ", ".join(dict.fromkeys(settings.label for settings in recipe.tasks.values()))
            raise DataError(
                f"The split {name} has none of the label columns {wanted}: {', '.join(split.column_names)}."
            )
        _refuse_shared(tasks)
        columns = input_columns(split, recipe.task, with_columns_of(trained_by, data, split), tasks)
        raw = {task: read_labels(split, each.label) for task, each in tasks.items()}
        labels = _as_written(labels, raw)
        names = {part.name: part.space.names for part in labels.tasks}
        raw = {task: respelled(values, names[task]) for task, values in raw.items()}
        stranger = "the model does not know"
        wanted_columns = {task: settings.label for task, settings in tasks.items()}
        encoded = encode_tasks(split, name, columns, wanted_columns, labels, stranger, raw)
        chosen = {"test": limit_rows(encoded, labels, data.max_eval_samples, recipe.data_seed, "test subset")}
        kept, _, skipped = leave_out_broken(chosen, {"test": inspect(chosen["test"].rows)}, data.on_error)
    return kept["test"], skipped


def _known(labels: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(part.name, part.space.problem_type, part.space.names) for part in labels.tasks]


def _as_written(labels: ManyLabels, raw: Mapping[str, RawLabels]) -> ManyLabels:
    """The tasks, each as its column writes its labels."""
    parts = [
        replace(part, space=as_written(part.space, raw[part.name])) if part.name in raw else part
        for part in labels.tasks
    ]
    return replace(labels, parts=tuple(parts))


def _refuse_shared(tasks: Mapping[str, TaskSettings]) -> None:
    """One column cannot hold the labels of tasks that learned from different data sets by the same column name."""
    for column in dict.fromkeys(settings.label for settings in tasks.values()):
        sharing = {name: settings.data for name, settings in tasks.items() if settings.label == column}
        first = next(iter(sharing.values()))
        if any(data != first for data in sharing.values()):
            raise DataError(
                f"The tasks {' and '.join(sharing)} were learned from different data sets, each with its own column "
                f"'{column}', and nothing says whose labels '{column}' holds here. Leave data.dataset out to score the "
                "run's own test rows, or compare the labels with what `hf-finetune predict` answers for each task."
            )
