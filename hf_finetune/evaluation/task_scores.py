"""Metrics of several tasks: those of each on the rows that have its label, by the names "task_metric"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation.intervals import with_intervals
from hf_finetune.evaluation.metrics import check_metrics, compute_metrics, default_metrics, greater_is_better
from hf_finetune.recipes.pairs_tasks import MEAN_SCORE

if TYPE_CHECKING:
    from hf_finetune.data.task_labels import TaskLabels
    from hf_finetune.recipes.schema import Recipe

# What stands for a task in the mean score: 1 is the best there is, for every kind of task.
_SCORE = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro_f1",
    "regression": "r2",
}


def metrics_of(recipe: Recipe, part: TaskLabels) -> tuple[str, ...]:
    """The metrics of a task: the recipe's, or those of its kind."""
    settings = recipe.tasks.get(part.name)
    named = settings.metrics if settings else None
    return named or default_metrics(part.space.problem_type, part.space.num_labels)


def flat_names(recipe: Recipe, tasks: Sequence[TaskLabels]) -> dict[str, str]:
    """Every metric that is measured, "task_metric" -> the metric."""
    return {f"{part.name}_{metric}": metric for part in tasks for metric in metrics_of(recipe, part)}


def check_tasks(recipe: Recipe, tasks: Sequence[TaskLabels], trust_remote_code: bool) -> None:
    """Raise a UserError where a metric does not fit its task."""
    for part in tasks:
        complaints = check_metrics(
            metrics_of(recipe, part),
            part.space.problem_type,
            num_labels=part.space.num_labels,
            trust_remote_code=trust_remote_code,
        )
        if complaints:
            raise UserError(f"tasks.{part.name}.metrics: {' '.join(complaints)}")


def best_of_tasks(recipe: Recipe, tasks: Sequence[TaskLabels]) -> tuple[str, bool]:
    """The validation metric that chooses the checkpoint, and whether more of it is better.

    Raises:
        UserError: `evaluation.best` names a metric that is not measured.
    """
    best = recipe.evaluation.best or MEAN_SCORE
    names = flat_names(recipe, tasks)
    losses = [f"{part.name}_loss" for part in tasks]
    if best in ("loss", *losses):
        return best, False
    if best == MEAN_SCORE:
        return best, True
    if best not in names:
        known = ", ".join([MEAN_SCORE, "loss", *names, *losses])
        raise UserError(f"evaluation.best={best} is not measured here: choose from {known}.")
    return best, greater_is_better(names[best])


def task_scores(
    logits: np.ndarray,
    packed: np.ndarray,
    recipe: Recipe,
    tasks: Sequence[TaskLabels],
    *,
    trust_remote_code: bool = False,
) -> dict[str, float]:
    """Every task's metrics on its labelled rows, and the mean score.

    The mean score is the mean, over the tasks whose weight is not 0, of accuracy (classes), micro F1 (multi-label) or
    R2 (regression): 1 is perfect for each. A task without a value, for want of labelled rows, takes no part.

    Args:
        logits: (N, C) outputs of all tasks, numbers in their own units.
        packed: (N, W) labels, see `data/task_labels.py`.
        recipe: metrics and weights of the tasks.
        tasks: where labels and outputs of each are.
        trust_remote_code: run the code of `evaluate:ID`.

    Returns:
        "task_metric" and "mean_score" -> value; NaN where there is none.
    """
    found: dict[str, float] = {}
    means = []
    for part, outputs, labels in _each(logits, packed, tasks):
        names, own = metrics_of(recipe, part), _SCORE[part.space.problem_type]
        if not len(labels):
            found |= {f"{part.name}_{name}": float("nan") for name in names}
            continue
        measured = tuple(dict.fromkeys((*names, own)))
        values = compute_metrics(
            outputs, labels, part.space.problem_type, measured, trust_remote_code=trust_remote_code
        )
        found |= {f"{part.name}_{name}": value for name, value in values.items() if name != own or own in names}
        if recipe.tasks[part.name].weight > 0 and not np.isnan(values[own]):
            means.append(values[own])
    found[MEAN_SCORE] = float(np.mean(means)) if means else float("nan")
    return found


def task_intervals(
    logits: np.ndarray,
    packed: np.ndarray,
    recipe: Recipe,
    tasks: Sequence[TaskLabels],
    *,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Every task's metrics with their intervals (`with_intervals`), and "task_samples": how many rows have its label.

    A task of which no row has a label is left out.
    """
    found: dict[str, Any] = {}
    for part, outputs, labels in _each(logits, packed, tasks):
        if not len(labels):
            continue
        scores = with_intervals(
            outputs,
            labels,
            part.space.problem_type,
            metrics_of(recipe, part),
            resamples=recipe.evaluation.bootstrap,
            seed=recipe.seed,
            trust_remote_code=trust_remote_code,
        )
        found |= {f"{part.name}_{name}": value for name, value in scores.items()}
        found[f"{part.name}_samples"] = len(labels)
    return found


def _each(
    logits: np.ndarray, packed: np.ndarray, tasks: Sequence[TaskLabels]
) -> Iterator[tuple[TaskLabels, np.ndarray, np.ndarray]]:
    """Each task with its outputs and labels on the rows that have its label."""
    for part in tasks:
        rows = part.labelled(packed)
        yield part, logits[rows][:, part.outputs], part.of(packed[rows])
