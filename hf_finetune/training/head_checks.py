"""What speaks against a head that is fitted at once, or tried many times at once: told before features are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import UserError
from hf_finetune.model.replay import attached
from hf_finetune.recipes.schema import Recipe
from hf_finetune.strategy.frozen import batch_norms, held_still

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied
    from hf_finetune.training.trainer import FinetuneTrainer


def check_head(recipe: Recipe, applied: Applied, processes: int, recorded: Mapping[str, Any]) -> None:
    """Refuse L-BFGS and sweeps that cannot be.

    Args:
        recipe: any.
        applied: the model with its strategy.
        processes: of the run.
        recorded: of the run that this one goes on with; what its sweep has chosen is not tried again.

    Raises:
        UserError: there are several processes, or heads that are tried at once have statistics of batches.
    """
    lbfgs = getattr(recipe.strategy, "solver", "adamw") == "lbfgs"
    sweeps = getattr(recipe.strategy, "sweep", None) is not None and not lbfgs and not recorded.get("sweep")
    if not lbfgs and not sweeps:
        return
    refuse_processes(processes, "strategy.solver=lbfgs" if lbfgs else "strategy.sweep")
    moving = batch_norms(applied.model, held_still(applied.model))
    if sweeps and moving:
        raise UserError(
            f"strategy.sweep: the head's {moving[0]} keeps statistics of batches, and heads that are tried at once "
            "would share them. Remove strategy.sweep and give one rate, or use strategy.solver=lbfgs."
        )


def refuse_processes(processes: int, what: str) -> None:
    """Raise a UserError where there are several: each would fit its own share of the rows."""
    if processes > 1:
        raise UserError(f"{what} runs in one process: features take little work. Start it without a launcher.")


def weight_decays(recipe: Recipe, own: float) -> tuple[float, ...]:
    """What L-BFGS tries, strongest first: of equals the strongest is taken.

    Args:
        recipe: its strategy perhaps with a sweep.
        own: the run's weight decay, where no sweep names any.
    """
    tried = getattr(getattr(recipe.strategy, "sweep", None), "weight_decay", None)
    return tuple(sorted(set(map(float, tried or (own,))), reverse=True))


def refuse_without_features(trainer: FinetuneTrainer, what: str) -> None:
    """Raise a UserError where the whole head cannot be trained on kept features."""
    kept = trainer.prefix is not None and all(stage is not None for stage in trainer.prefix.stages)
    if not kept or not attached(trainer.applied.model).bare:
        raise UserError(
            f"{what} works on features that are computed once, and here they are not (see the line about the frozen "
            "prefix): remove it, or what speaks against keeping them."
        )
