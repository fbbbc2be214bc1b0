"""What cannot go together about folds, calibrated probabilities, thresholds and prediction sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_uncertainty(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    if recipe.tasks:
        yield from _of_tasks(recipe)
        return
    yield from _folds(recipe)
    problem = recipe.data.problem_type
    if problem is not None:
        for key, message in answer_faults(recipe, problem):
            yield f"evaluation.{key}", message


def answer_faults(recipe: Recipe, problem_type: str) -> Iterator[tuple[str, str]]:
    """(key of evaluation, message) of what does not go with labels of a problem type; it may be known only later."""
    evaluation = recipe.evaluation
    kind = problem_type.replace("_", " ")
    if evaluation.calibration != "none" and problem_type == "regression":
        yield "calibration", f"{evaluation.calibration} is for probabilities of classes, and this is {kind}: remove it"
    if evaluation.thresholds != "none" and problem_type != "multi_label_classification":
        yield "thresholds", f"{evaluation.thresholds} is for several labels a row, and this is {kind}: remove it"
    if evaluation.conformal is not None and problem_type != "single_label_classification":
        yield "conformal", f"makes sets of which one class is right, and this is {kind}: remove it"


def _of_tasks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    reason = "is for one label column, and the recipe has tasks: remove one of the two"
    for name in ("group", "fold"):
        if getattr(recipe.data, name) is not None:
            yield f"data.{name}", reason
    for name, off in (("cross_validation", None), ("calibration", "none"), ("thresholds", "none"), ("conformal", None)):
        if getattr(recipe.evaluation, name) != off:
            yield f"evaluation.{name}", reason


def _folds(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.fold is not None:
        place, count = data.fold
        if count < 2 or place > count:
            yield "data.fold", f"[{place}, {count}] must be [K, N]: the K-th of N folds, K from 1 to N, N at least 2"
        if recipe.evaluation.cross_validation is not None:
            yield "data.fold", "is one of the folds that evaluation.cross_validation runs: remove one of the two"
    if data.group is not None and data.group in (data.image, data.text, data.text_pair, data.label):
        yield (
            "data.group",
            f"'{data.group}' is a column of inputs or labels: name one that says what belongs together",
        )
