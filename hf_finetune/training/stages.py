"""Several stages in one run: one optimizer, one set of logs, a schedule of its own in each stage.

The optimizer holds every parameter that learns in any stage. What is frozen in a stage asks for no gradient, and
torch's optimizers pass over parameters without one: no step, no weight decay.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.training.precision import launcher_shards_the_model
from hf_finetune.training.schedules import build_scheduler

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


class Stages(TrainerCallback):
    """Enters each stage at its first optimizer step, also after a resume, and says so.

    Args:
        applied: a strategy of several stages, each with its epochs.

    Raises:
        UserError: FSDP or DeepSpeed shards the model.
    """

    def __init__(self, applied: Applied) -> None:
        if launcher_shards_the_model():
            raise UserError(
                "A strategy of several stages changes who learns during the run, and FSDP and DeepSpeed decide that at "
                "the start. Use an accelerate config without them (multi_gpu), or a strategy of one stage."
            )
        self.applied = applied
        self.current: int | None = None

    @property
    def share_before_last(self) -> float:
        """Share of the run's epochs before the last stage."""
        epochs = [float(stage.epochs or 0) for stage in self.applied.stages]
        return sum(epochs[:-1]) / sum(epochs)

    def first_steps(self, max_steps: int) -> list[int]:
        """The optimizer step at which each stage starts, from 0, and the end of the last.

        Args:
            max_steps: of the whole run.

        Raises:
            UserError: a stage is shorter than one step.
        """
        epochs = [float(stage.epochs or 0) for stage in self.applied.stages]
        ends = [round(max_steps * end / sum(epochs)) for end in accumulate(epochs)]
        steps = [0, *ends[:-1], max_steps]
        for index, (start, end) in enumerate(pairwise(steps)):
            if start >= end:
                raise UserError(
                    f"Stage {index + 1} of {len(epochs)} is {epochs[index]:.3g} of {sum(epochs):g} epochs long, which "
                    f"is less than one of the run's {max_steps} optimizer steps. Give more epochs, fewer stages "
                    "(strategy.blocks_per_stage), or a smaller batch."
                )
        return steps

    def at(self, step: int, max_steps: int) -> int:
        """The stage, from 0, of the optimizer step that comes after `step` steps."""
        return min(bisect_right(self.first_steps(max_steps), step), len(self.applied.stages)) - 1

    def scheduler(self, args: TrainingArguments, optimizer: torch.optim.Optimizer, max_steps: int) -> LambdaLR:
        """A scheduler that gives every group its rate of the stage times the stage's own schedule.

        Args:
            args: `lr_scheduler_type` and the warm-up hold anew in every stage, over that stage's steps.
            optimizer: its groups have "rates", one a stage, and "initial_lr" or "lr", the largest of them.
            max_steps: of the whole run.
        """
        starts = self.first_steps(max_steps)
        schedules = [
            schedule_of(args, end - start, stage.learning_rate or args.learning_rate)
            for stage, (start, end) in zip(self.applied.stages, pairwise(starts), strict=True)
        ]

        def factor_of(rates: Sequence[float]) -> Callable[[int], float]:
            def factor(step: int) -> float:
                index = self.at(step, max_steps)
                return float(schedules[index](step - starts[index]) * (rates[index] / max(rates)))

            return factor

        return LambdaLR(optimizer, [factor_of(group["rates"]) for group in optimizer.param_groups])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Enter the stage in which training starts or goes on."""
        self.current = None
        self._enter(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Enter the next stage where one begins with this step."""
        self._enter(state)

    def _enter(self, state: TrainerState) -> None:
        index = self.at(state.global_step, state.max_steps)
        if index == self.current:
            return
        self.current = index
        self.applied.enter(index)
        start, end = self.first_steps(state.max_steps)[index : index + 2]
        going_on = "" if state.global_step == start else f", going on at step {state.global_step + 1}"
        with tqdm.external_write_mode(file=sys.stdout):
            say(
                f"stage {index + 1} of {len(self.applied.stages)}, steps {start + 1} to {end}{going_on}: "
                f"{self.applied.in_words(index)}"
            )


class Patience(EarlyStoppingCallback):
    """Early stopping by all evaluations, which does not end a run before its last stage, in which most is learned.

    transformers' own compares with the best step that is saved: where fewer are saved than are evaluated, it began anew
    at each score that beat that one, and as long as there was none. That of `training.eval_on_start` is of no training.

    Args:
        early_stopping_patience: evaluations without a better one.
        early_stopping_threshold: by how much a better one is better.
        after: share of the run's steps before the last stage, in which evaluations do not count.
    """

    best: float | None = None

    def __init__(
        self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0, after: float = 0.0
    ) -> None:
        super().__init__(early_stopping_patience, early_stopping_threshold)
        self.after = after

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Compare this evaluation with those before it, and count it if it is of the last stage."""
        if state.global_step > 0:
            super().on_evaluate(args, state, control, metrics, **kwargs)

    def check_metric_value(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metric_value: float
    ) -> None:
        """A better score is the best from here on; NaN is never better."""
        if self._is_better(float(metric_value), bool(args.greater_is_better)):
            self.best, self.early_stopping_patience_counter = float(metric_value), 0
        elif state.global_step > round(state.max_steps * self.after):
            self.early_stopping_patience_counter += 1

    def _is_better(self, value: float, greater: bool) -> bool:
        if self.best is None:
            return not math.isnan(value)
        return (value - self.best if greater else self.best - value) > (self.early_stopping_threshold or 0.0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; transformers makes the callback anew from it."""
        kept: dict[str, Any] = super().state()
        kept["args"]["after"] = self.after
        kept["attributes"]["best"] = self.best
        return kept


def schedule_of(args: TrainingArguments, steps: int, rate: float) -> Callable[[int], float]:
    """Step -> share of a rate, by transformers' own scheduler of that name.

    Args:
        args: `lr_scheduler_type`, its options and the warm-up.
        steps: over which the schedule goes.
        rate: some schedulers end at a rate of their own (`min_lr`, `lr_end`), which is another share of each rate.

    Raises:
        UserError: a scheduler that follows the validation score, or see `build_scheduler`.
    """
    kind = args.lr_scheduler_type
    scheduler = build_scheduler(kind, args.lr_scheduler_kwargs, rate, args.get_warmup_steps(steps), steps)  # type: ignore[arg-type]
    if not isinstance(scheduler, LambdaLR):
        raise UserError(
            f"training.lr_scheduler_type={kind} follows the validation score and knows no stages: "
            "use linear, cosine or constant with a strategy of several stages."
        )
    schedule: Callable[[int], float] = scheduler.lr_lambdas[0]
    return schedule
