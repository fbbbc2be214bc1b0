"""A finished model of several tasks, scored on the labels of each that the data has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.console import warn
from hf_finetune.data import load_test
from hf_finetune.errors import UserError
from hf_finetune.evaluation.commands import logits_of
from hf_finetune.evaluation.task_scores import check_tasks, task_intervals

if TYPE_CHECKING:
    from hf_finetune.data.task_labels import ManyLabels
    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.recipes import Recipe
    from hf_finetune.recipes.schema import Data


def score_tasks(
    predictor: Predictor,
    labels: ManyLabels,
    recipe: Recipe,
    trained_by: Data | None,
    own: bool,
    trust_remote_code: bool,
    progress: str | None,
) -> dict[str, Any]:
    """The metrics of every task, as `test` in metrics.json holds them.

    Args:
        predictor: the finished model.
        labels: what it answers.
        recipe: of its run, with overrides.
        trained_by: the data section of its run, if it is known; its columns are taken where the data has them.
        own: whether the data is the one that it was trained by.
        trust_remote_code: run the code of `evaluate:ID`.
        progress: words beside a progress bar.

    Raises:
        UserError: it is no run, or the data does not fit it.
    """
    if not recipe.tasks:
        raise UserError(
            "The model tells several tasks, and without the recipe of its run nothing says which columns hold their "
            "labels: give the folder of the run."
        )
    check_tasks(recipe, labels.tasks, trust_remote_code)
    test, skipped = load_test(recipe, labels, trained_by=trained_by, own=own)
    if skipped:
        warn(f"{len(skipped):,} broken rows are left out (data.on_error=skip).")
    logits = logits_of(predictor, test, recipe, progress)
    packed = np.asarray(test["label"][:])
    scores = task_intervals(logits, packed, recipe, labels.tasks, trust_remote_code=trust_remote_code)
    return {**scores, "samples": len(logits)}
