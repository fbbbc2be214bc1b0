"""As many training rows as the time allows, read through the checkpoint and probed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.choice.depths import AtDepths, blocks_of, joined, read_depths
from hf_finetune.choice.kept import read_and_keep
from hf_finetune.choice.measures import Depths, Measures, probe_depths, spread_evenly, targets_of

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.choice.cost import Pace
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import Recipe

MOST_ROWS = 2000
LEAST_ROWS = 32
_FIRST = 64  # rows by which the speed is measured
_READING = 0.7  # of the time; the rest is for probes
_MAKING_READY = 2.0  # seconds that it takes to find out how a run would keep features


def measure(
    recipe: Recipe, task: TaskData, loaded: LoadedModel, pace: Pace, seconds: float, head: Recipe | None = None
) -> Measures:
    """Read as many training rows as the time allows, a part of which every class has its share, and probe them.

    Args:
        recipe: for its seed and how rows are read.
        task: the data; validation and test rows are not looked at.
        loaded: the checkpoint.
        pace: of this machine.
        seconds: for all of it. 32 rows and one probe are taken whatever they cost; the caller knows that they fit.
        head: the recipe with strategy=head, so that a run of it finds the features where all rows can be read.
    """
    until = time.perf_counter() + seconds
    targets = targets_of(task)
    order = np.arange(len(targets))
    most = int((_READING * seconds - _MAKING_READY) / max(pace.read + pace.forward, 1e-9))
    found = None
    if head is not None and len(targets) <= min(most, MOST_ROWS):
        found = read_and_keep(head, task, loaded, blocks_of(loaded))
    if found is None:
        order = spread_evenly(targets, recipe.seed)
        found = _read(recipe, task.train, loaded, pace, order, until - time.perf_counter())
    rows = len(found.features[0])
    return probe_depths(found, targets[order[:rows]], task, recipe.seed, until)


def _read(recipe: Recipe, rows: Dataset, loaded: LoadedModel, pace: Pace, order: np.ndarray, seconds: float) -> Depths:
    model = AtDepths(loaded, pace.in_bf16)
    began = time.perf_counter()
    likely = max(0, int(_READING * seconds / max(pace.read + pace.forward, 1e-9)))
    first = min(len(rows), MOST_ROWS, max(LEAST_ROWS, min(_FIRST, likely)))
    parts = [read_depths(model, recipe, loaded.processor, rows.select(order[:first]))]
    left = _READING * seconds - (time.perf_counter() - began)
    more = min(len(rows), MOST_ROWS, first + max(0, int(left / max(parts[0].seconds, 1e-9))))
    if more > first:
        parts.append(read_depths(model, recipe, loaded.processor, rows.select(order[first:more])))
    return joined(parts)
