"""`strategy=auto`: what it cannot choose between, and what it chooses itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_auto(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    strategy = recipe.strategy
    if strategy.kind != "auto":
        return
    if recipe.tasks:
        yield "strategy", "auto measures one label column, and there are tasks: name a strategy, such as full"
    if getattr(recipe.data, "streaming", False):
        yield "strategy", "auto reads rows by their numbers, and data.streaming has none: name a strategy, such as full"
    if "learning_rate" in recipe.training.values():
        yield "training.learning_rate", "goes with one strategy, and auto chooses both: remove it, or name a strategy"
    if len(set(strategy.candidates)) < len(strategy.candidates):
        yield "strategy.candidates", f"{', '.join(strategy.candidates)} names one of them twice: name each once"
