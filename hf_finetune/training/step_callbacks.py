"""What acts on the weights or the clock after each optimizer step, in the order in which it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.coral import CoralHead
from hf_finetune.training.ema import Ema
from hf_finetune.training.l2_sp import StartingPoint
from hf_finetune.training.precision import launcher_shards_the_model
from hf_finetune.training.targets import output_module
from hf_finetune.training.time_budget import TimeBudget

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


def callbacks_of_steps(recipe: Recipe, applied: Applied) -> list[TrainerCallback]:
    """Pull to the checkpoint, form of the output layer, average of the result, time: those the recipe asks for.

    Raises:
        UserError: one of them needs whole weights, and the accelerate config shards them.
    """
    _refuse_sharded(recipe)
    found: list[TrainerCallback] = []
    if recipe.loss.l2_sp:
        found.append(StartingPoint(applied, recipe.loss.l2_sp))
    if recipe.loss.kind == "coral":
        found.append(CoralHead(output_module(applied)))
    if recipe.average.ema is not None:
        found.append(Ema(recipe.average.ema))
    minutes = recipe.training.values().get("max_minutes")
    if minutes is not None:
        found.append(TimeBudget(float(minutes)))
    return found


def _refuse_sharded(recipe: Recipe) -> None:
    if not launcher_shards_the_model():
        return
    wanted = {
        "loss.l2_sp": recipe.loss.l2_sp > 0,
        "loss.kind=coral": recipe.loss.kind == "coral",
        "average.ema": recipe.average.ema is not None,
        "average.soup": recipe.average.soup is not None,
        "training.optim=muon": recipe.training.values().get("optim") == "muon",
        "distill.on=features": recipe.distill is not None and recipe.distill.on != "logits",
    }
    names = [name for name, on in wanted.items() if on]
    if names:
        raise UserError(
            f"{', '.join(names)}: needs each weight whole, and this accelerate config (FSDP or DeepSpeed) shards them. "
            "Use accelerate_configs/multi_gpu.yaml, or leave it out."
        )
