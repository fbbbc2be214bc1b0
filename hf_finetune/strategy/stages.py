"""Strategies that are lists of stages: head first then everything, gradual unfreezing, and a recipe's own list."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hf_finetune.errors import UserError
from hf_finetune.recipes.rates import default_rate, rate_of
from hf_finetune.recipes.staging import total_epochs
from hf_finetune.strategy.rates_by_part import by_depth, by_parameter
from hf_finetune.strategy.stage import LearningStage, stage_of
from hf_finetune.strategy.who_learns import head_multiplier, stage_for

if TYPE_CHECKING:
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import Gradual, LpFt, Recipe, Stages


def lp_ft(settings: LpFt, loaded: LoadedModel, recipe: Recipe) -> tuple[LearningStage, ...]:
    """The head alone at a head's rate, then everything from that head (Kumar et al. 2022, arXiv:2202.10054)."""
    from hf_finetune.recipes.schema import HeadOnly

    head_rate = settings.head_learning_rate or default_rate("head", recipe)
    probe = stage_for(HeadOnly(), loaded, recipe, head_rate, settings.head_epochs)
    return probe, stage_for(settings, loaded, recipe, epochs=total_epochs(recipe) - settings.head_epochs)


def gradual(settings: Gradual, loaded: LoadedModel, recipe: Recipe) -> tuple[LearningStage, ...]:
    """The head alone, then so many blocks more in each stage from the top, the stem with the last.

    Howard and Ruder 2018, arXiv:1801.06146 (ULMFiT), section 3.3.

    Raises:
        UserError: `stage_epochs` leave nothing to the last stage.
    """
    anatomy = loaded.anatomy
    count, step = len(anatomy.blocks), settings.blocks_per_stage
    total, number = total_epochs(recipe), 1 + math.ceil(count / step)
    each = total / number if settings.stage_epochs is None else settings.stage_epochs
    last = total - each * (number - 1)
    if last <= 0:
        raise UserError(
            f"strategy.stage_epochs={each:g}: {recipe.model.checkpoint} has {count} blocks, so there are {number} "
            f"stages, and training.num_train_epochs={total:g} leaves nothing to the last. Give more than "
            f"{each * (number - 1):g} epochs, shorter stages, or more strategy.blocks_per_stage."
        )
    rates = by_depth(anatomy, head_multiplier(settings, loaded), settings.layer_decay)
    stages = []
    for index in range(number - 1):
        learning = {"head", *(block.name for block in anatomy.blocks[max(count - index * step, 0) :])}
        parts = {name: rate for name, rate in rates.items() if name in learning}
        stages.append(stage_of(loaded.model, anatomy, by_parameter(anatomy, parts), epochs=each))
    return *stages, stage_of(loaded.model, anatomy, by_parameter(anatomy, rates), epochs=last)


def listed(settings: Stages, loaded: LoadedModel, recipe: Recipe) -> tuple[LearningStage, ...]:
    """The stages that a recipe lists."""
    return tuple(
        stage_for(
            stage.strategy,
            loaded,
            recipe,
            stage.learning_rate or rate_of(stage.strategy, recipe),
            stage.epochs,
        )
        for stage in settings.stages
    )
