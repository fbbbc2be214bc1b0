"""Strategies of several stages: which they are, and how long the whole run is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

# transformers' own default of num_train_epochs.
USUAL_EPOCHS = 3.0


def is_staged(recipe: Recipe) -> bool:
    """Whether the run has more than one stage."""
    strategy = recipe.strategy
    return len(strategy.stages) > 1 if strategy.kind == "stages" else strategy.kind in ("lp_ft", "gradual")


def total_epochs(recipe: Recipe) -> float:
    """Epochs of the whole run: `training.num_train_epochs`, or the sum of the stages that are listed."""
    given = recipe.training.values().get("num_train_epochs")
    if given is not None:
        return float(given)
    strategy = recipe.strategy
    return sum(stage.epochs for stage in strategy.stages) if strategy.kind == "stages" else USUAL_EPOCHS


def last_kind(recipe: Recipe) -> str:
    """The kind of the strategy that is in force when the run ends."""
    strategy = recipe.strategy
    return strategy.stages[-1].strategy.kind if strategy.kind == "stages" else strategy.kind
