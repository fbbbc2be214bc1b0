"""Data that the runs of one process have in common is opened, split and looked at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hf_finetune.data.load import TaskData
from hf_finetune.data.load import load_data as load_anew

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.recipes import Recipe

_read: dict[str, TaskData] | None = None


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, recipes that say the same of their data get the same rows, as they were when the first one asked."""
    global _read
    before = _read
    _read = {} if before is None else before
    try:
        yield
    finally:
        _read = before


def load_data(recipe: Recipe, source: Dataset | DatasetDict | None = None) -> TaskData:
    """Open, split and check the data of a recipe: see `hf_finetune.data.load.load_data`; inside `read_once` once.

    Args:
        recipe: its task, `data`, `tasks` and seed.
        source: in place of `data.dataset`.
    """
    if _read is None:
        return load_anew(recipe, source)
    parts = recipe.model_dump(mode="json", include={"task", "data", "tasks"})
    parts["data"].pop("seed")  # in data_seed
    rows = recipe.evaluation.test, recipe.evaluation.cross_validation is not None
    key = json.dumps([parts, recipe.data_seed, rows, id(source)], sort_keys=True)
    if key not in _read:
        _read[key] = load_anew(recipe, source)
    return _read[key]
