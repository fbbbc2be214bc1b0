"""The schedule of the learning rate that a recipe names: transformers' own, refused in words before work starts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import SchedulerType
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR, get_scheduler

from hf_finetune.errors import UserError
from hf_finetune.recipes.rates import rates_of
from hf_finetune.recipes.schema import Recipe

_OURS = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
_WARM_UP, _STEPS = 10, 100  # the run's own are known with its data; options are refused whatever they are


def check_schedules(recipe: Recipe, rate: float) -> None:
    """Build the schedule that a run will have, for each rate that it begins at.

    Args:
        recipe: any; nothing is built where nothing learns by steps.
        rate: the run's own; infinite where it is not known yet, and none is too small.

    Raises:
        UserError: see `build_scheduler`.
    """
    if recipe.strategy.kind == "features" or getattr(recipe.strategy, "solver", "adamw") == "lbfgs":
        return
    values = recipe.training.values()
    for each in rates_of(recipe, rate):
        build_scheduler(
            values.get("lr_scheduler_type") or "linear", values.get("lr_scheduler_kwargs"), each, _WARM_UP, _STEPS
        )


def build_scheduler(
    kind: str, options: Mapping[str, Any] | None, rate: float, warm_up: int, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """transformers' scheduler of that name, over an optimizer of its own.

    Args:
        kind: as `training.lr_scheduler_type`.
        options: as `training.lr_scheduler_kwargs`.
        rate: that it begins at.
        warm_up: steps of the warm-up.
        steps: of the whole schedule.

    Raises:
        UserError: it does not have one of the options, lacks one, or cannot be computed with them at this rate.
    """
    name, given = SchedulerType(kind), dict(options or {})
    allowed = _options_of(name)
    try:
        if unknown := [option for option in given if option not in allowed]:
            raise ValueError(f"it has no option {', '.join(unknown)}")
        scheduler = get_scheduler(name, _optimizer(given, rate), warm_up, steps, given)
        if isinstance(scheduler, LambdaLR):  # an option may be looked at behind the warm-up, or at the end alone
            for step in (*range(0, steps, max(1, steps // _STEPS)), steps):
                scheduler.lr_lambdas[0](step)
    except (ValueError, TypeError, ArithmeticError) as fault:
        beside = f" with training.lr_scheduler_kwargs={given}" if given else ""
        raise UserError(
            f"training.lr_scheduler_type={name.value}{beside} gives no schedule for a learning rate of {rate:g}: "
            f"{fault}. Its options are {', '.join(allowed) or 'none'}: give them in training.lr_scheduler_kwargs, or "
            "use linear, cosine or constant without any."
        ) from fault
    return scheduler


def _options_of(name: SchedulerType) -> list[str]:
    made: dict[SchedulerType, Any] = {
        SchedulerType.REDUCE_ON_PLATEAU: ReduceLROnPlateau,
        SchedulerType.GREEDY: GreedyLR,
    }
    function = made.get(name) or TYPE_TO_SCHEDULER_FUNCTION[name]
    return [parameter for parameter in inspect.signature(function).parameters if parameter not in _OURS]


def _optimizer(options: Mapping[str, Any], rate: float) -> torch.optim.Optimizer:
    """Of as many groups as a list has values: `min_lr` of schedules that follow the score has one for each."""
    groups = max((len(value) for value in options.values() if isinstance(value, list | tuple)), default=1)
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(max(1, groups))], lr=rate)
