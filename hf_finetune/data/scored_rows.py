"""The rows that a finished model is scored on: of its own data, or of other data, in its labels and columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict

from hf_finetune.data.checks import inspect
from hf_finetune.data.columns import find_columns
from hf_finetune.data.label_columns import find_label_space, read_labels
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.legible import bad_bytes_named
from hf_finetune.data.load import TaskData, leave_out_broken, load_data
from hf_finetune.data.ranks import first_on_each_machine
from hf_finetune.data.roles import encode_for, limit_rows
from hf_finetune.data.sources import open_source, take_split
from hf_finetune.data.split_names import settle_splits, split_to_score
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data, Recipe

_ROLES = ("image", "text", "text_pair", "label")


def load_test(
    recipe: Recipe,
    labels: LabelSpace,
    source: Dataset | DatasetDict | None = None,
    *,
    trained_by: Data | None = None,
    own: bool = False,
) -> tuple[Dataset, list[dict[str, Any]]]:
    """The test rows alone, encoded in the labels of a finished model; no other split is needed or looked at.

    Other data than the model's own needs no training rows: of a single split every row is taken, one class is enough.
    A share of train that the recipe names, or that its own data has for a test, is the one `load_data` holds out.

    Args:
        recipe: its data section says what to score on.
        labels: what the model answers.
        source: in place of `data.dataset`.
        trained_by: the data section that the model was trained by, if it is known. Its columns are taken where the
            data has them and the recipe names no others.
        own: the data is the one that the model was trained by: `auto` is the test split that it was in training.

    Returns:
        the rows (columns id, image or text and text_pair, label), and those left out by data.on_error=skip.

    Raises:
        DataError: as `load_data`; or a label that the model does not know; or the recipe has no test split.
        UserError: the network or a package is missing.
    """
    # A run that was not to read its test split may be scored on it later.
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"test": True})})
    if isinstance(labels, ManyLabels):
        from hf_finetune.data.task_test import load_task_test

        return load_task_test(recipe, labels, source, trained_by=trained_by, own=own)
    data = recipe.data
    if data.test_split is None:
        raise DataError("data.test_split is null: say data.test_split=NAME for the split to evaluate on.")
    if data.streaming and own:
        return _of_own(load_data(recipe, source), labels)
    with first_on_each_machine():
        splits = open_source(data, source)
        if own:
            data = settle_splits(data, splits)
    if isinstance(data.test_split, float):
        return _of_own(load_data(recipe, source), labels)
    with first_on_each_machine():
        name = split_to_score(data, splits)
        split = take_split(splits, name, "data.test_split")
        with bad_bytes_named({name: split}):
            columns = find_columns(split, recipe.task, with_columns_of(trained_by, data, split))
            encoded = encode_for(labels, split, name, columns)
            chosen = {"test": limit_rows(encoded, labels, data.max_eval_samples, recipe.data_seed, "test subset")}
            kept, _, skipped = leave_out_broken(chosen, {"test": inspect(chosen["test"].rows)}, data.on_error)
    return kept["test"], skipped


def _of_own(task: TaskData, labels: LabelSpace) -> tuple[Dataset, list[dict[str, Any]]]:
    if task.labels != labels:
        raise DataError(f"The data has the labels {_listed(task.labels)}; the model knows {_listed(labels)}.")
    return task.test, task.skipped  # type: ignore[return-value]  # its test is not null


def labels_of(recipe: Recipe) -> LabelSpace:
    """The labels that the data itself has, for a model that does not name its own: of train, or of the only split."""
    if recipe.data.streaming:
        from hf_finetune.data.stream_load import labels_of_stream

        return labels_of_stream(recipe)
    with first_on_each_machine():
        splits: Mapping[str, Dataset] = open_source(recipe.data)
        train = settle_splits(recipe.data, splits).train_split
        split = splits[train] if train in splits else take_split(splits, split_to_score(recipe.data, splits), "data")
        columns = find_columns(split, recipe.task, recipe.data)
        return find_label_space(read_labels(split, columns.label), columns.label, recipe.data.problem_type)


def with_columns_of(trained_by: Data | None, data: Data, split: Dataset) -> Data:
    """The data section with the columns that a model was trained by, where the split has them.

    Raises:
        DataError: the model takes pairs, and which column is the second text is not known.
    """
    if trained_by is None:
        return data
    kept = {
        role: getattr(trained_by, role)
        for role in _ROLES
        if getattr(data, role) is None and getattr(trained_by, role) in split.column_names
    }
    if trained_by.text_pair and not (data.text_pair or "text_pair" in kept):
        raise DataError(
            f"The model takes pairs of texts, and the data has no column '{trained_by.text_pair}': say "
            f"data.text=COLUMN data.text_pair=COLUMN. The columns are: {', '.join(split.column_names)}."
        )
    return data.model_copy(update=kept)


def _listed(labels: LabelSpace) -> str:
    return ", ".join(labels.names[:10]) + (", ..." if labels.num_labels > 10 else "")
