"""Rules of data.clean that the task has no use for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_clean(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    clean, problem = recipe.data.clean, recipe.data.problem_type
    if clean is None:
        return
    if clean.near_duplicates is not None and recipe.task == "text-classification":
        yield (
            "data.clean.near_duplicates",
            f"compares what images look like, and the task is {recipe.task}: remove it; duplicates finds equal texts",
        )
    if clean.max_per_class is not None and problem in ("regression", "multi_label_classification"):
        yield (
            "data.clean.max_per_class",
            f"counts the rows of each class, and with data.problem_type={problem} a row has no single one: use "
            "data.max_train_samples",
        )
    if not (clean.duplicates or clean.empty or clean.near_duplicates is not None or clean.max_per_class):
        yield "data.clean", "every rule is off: say data.clean=null to clean nothing"
