"""Somebody who looks on while a run trains: told of each validation score, and free to end the run there.

A search is one: it gives up what falls behind. The run itself does not depend on who looks on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.errors import UserError
from hf_finetune.training.time_budget import TimeBudget

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer


class EndedEarly(UserError):
    """An onlooker has ended the run: it leaves no model and no scores."""


@dataclass(frozen=True)
class Validated:
    """What the kept model answers to the validation rows.

    Args:
        metric: that chose the checkpoint.
        score: its value.
        greater_is_better: whether more of it is better.
        problem_type: transformers' word for the kind of answer; "" of several tasks.
        logits: (N, C), in the order of the validation split.
        labels: (N,) or (N, C).
    """

    metric: str
    score: float
    greater_is_better: bool
    problem_type: str
    logits: np.ndarray
    labels: np.ndarray


class Onlooker:
    """Called on every process alike; answers must be the same on all."""

    def evaluated(self, share: float, score: float, greater_is_better: bool) -> bool:
        """A validation in the middle of a run.

        Args:
            share: of the run that is done, 0 to 1: of its steps, or of its time where `training.max_minutes` is nearer.
            score: of the metric that chooses the checkpoint.
            greater_is_better: whether more of it is better.

        Returns:
            whether the run is to end here; it raises EndedEarly then.
        """
        return False

    def validated(self, outcome: Validated) -> None:
        """The model that is kept, at the end of the run, before anything of it is saved."""


_current: Onlooker | None = None


@contextmanager
def looked_on_by(onlooker: Onlooker) -> Iterator[None]:
    """Runs inside are looked on by this one."""
    global _current
    before, _current = _current, onlooker
    try:
        yield
    finally:
        _current = before


def current() -> Onlooker | None:
    """Who looks on."""
    return _current


class TellsOnlooker(TrainerCallback):
    """Tells of each validation; after a resume also of those before it, once more.

    Args:
        onlooker: who is told.
        trainer: whose callbacks are closed where the run ends early.
    """

    def __init__(self, onlooker: Onlooker, trainer: FinetuneTrainer) -> None:
        self.onlooker = onlooker
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What was told before an interruption: it went on from there."""
        name = f"eval_{args.metric_for_best_model}"
        for entry in state.log_history:
            if name in entry:
                share = int(entry["step"]) / max(1, state.max_steps)
                self.onlooker.evaluated(share, float(entry[name]), bool(args.greater_is_better))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell, and end the run where that is wanted and there is still something left of it."""
        score = (kwargs.get("metrics") or {}).get(f"eval_{args.metric_for_best_model}")
        if score is None:
            return
        share = self._share(state)
        ends = self.onlooker.evaluated(share, float(score), bool(args.greater_is_better))
        if ends and share < 1 and not control.should_training_stop:
            self.trainer.callback_handler.on_train_end(args, state, control)  # bars and tables are closed
            raise EndedEarly(f"ended early, at step {state.global_step} of {state.max_steps}")

    def _share(self, state: TrainerState) -> float:
        share = state.global_step / max(1, state.max_steps)
        budget = next((each for each in self.trainer.callback_handler.callbacks if isinstance(each, TimeBudget)), None)
        return min(1.0, share if budget is None else max(share, budget.used / (60.0 * budget.minutes)))
