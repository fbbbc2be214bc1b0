"""What cannot go together in who learns when: zones, and strategies of several stages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.staging import is_staged, total_epochs

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

# They follow the validation score, not the steps of a stage.
NO_SCHEDULE = ("reduce_lr_on_plateau", "greedy")


def faults_of_stages(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Faults of zones, and of stages against the run's epochs, steps and schedule."""
    strategy, values = recipe.strategy, recipe.training.values()
    yield from _zones(recipe)
    if strategy.kind == "stages" and "learning_rate" in values:
        yield (
            "training.learning_rate",
            "every stage of strategy=stages has its own rate: give learning_rate inside strategy.stages, or leave it "
            "to each stage's default",
        )
    if not is_staged(recipe):
        if strategy.kind == "stages":
            yield from _epochs(recipe)
        return
    yield from _epochs(recipe)
    if values.get("max_steps", -1) > 0:
        yield (
            "training.max_steps",
            f"strategy={strategy.kind} divides epochs into stages: use training.num_train_epochs, which may be a "
            "fraction such as 0.5",
        )
    if values.get("lr_scheduler_type") in NO_SCHEDULE:
        yield (
            "training.lr_scheduler_type",
            f"{values['lr_scheduler_type']} follows the validation score and knows no stages (strategy="
            f"{strategy.kind}): use linear, cosine or constant",
        )


def _epochs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    strategy, total = recipe.strategy, total_epochs(recipe)
    if strategy.kind == "stages":
        added = sum(stage.epochs for stage in strategy.stages)
        if not math.isclose(added, total):
            yield (
                "training.num_train_epochs",
                f"{total:g} is not what the stages add up to ({' + '.join(f'{s.epochs:g}' for s in strategy.stages)} = "
                f"{added:g}): leave it out, or change the stages",
            )
    elif strategy.kind == "lp_ft" and strategy.head_epochs >= total:
        yield (
            "strategy.head_epochs",
            f"{strategy.head_epochs:g} leaves nothing of the run's {total:g} epochs to the second stage: give less, or "
            "a larger training.num_train_epochs",
        )
    elif strategy.kind == "gradual" and strategy.stage_epochs is not None and strategy.stage_epochs >= total:
        yield (
            "strategy.stage_epochs",
            f"{strategy.stage_epochs:g} epochs a stage leave nothing of the run's {total:g} to the last stage: give "
            "less, or a larger training.num_train_epochs",
        )


def _zones(recipe: Recipe) -> Iterator[tuple[str, str]]:
    strategy = recipe.strategy
    listed = strategy.stages if strategy.kind == "stages" else ()
    named = [("strategy", strategy), *((f"strategy.stages.{i}.strategy", s.strategy) for i, s in enumerate(listed))]
    for path, settings in named:
        if settings.kind == "full" and settings.zones is not None and not any(settings.zones):
            yield f"{path}.zones", "0, 0, 0 freezes everything but the head: strategy=head says so, with its own rate"
