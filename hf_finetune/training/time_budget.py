"""`training.max_minutes`: a run that is over when its time is."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy

from hf_finetune.console import say

_EVERY = 10  # steps: asking rank 0 makes every process wait for the GPU


class TimeBudget(TrainerCallback, ExportableState):
    """Stops training at the end of the step in which the time is used up; validation follows as at any end.

    Several processes agree on it at every tenth step. Counted is the wall time of the training loop, validation and
    checkpoints included. The time used before an interruption is in the checkpoints, and counts after a resume.

    Args:
        minutes: of training.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.used_before = 0.0  # seconds, in processes that were interrupted
        self.started: float | None = None

    @property
    def used(self) -> float:
        """Seconds of training so far."""
        return self.used_before + (0.0 if self.started is None else time.monotonic() - self.started)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: asked for whenever one is written."""
        return {"args": {"minutes": self.minutes}, "attributes": {"used_before": self.used}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Rank 0's clock decides for all."""
        if not self._over(args, state.global_step):
            return
        if not control.should_training_stop:
            say(
                f"training.max_minutes={self.minutes:g} are used up at step {state.global_step} of {state.max_steps}: "
                "the best checkpoint so far is kept."
            )
        control.should_training_stop = True
        # At the end of an epoch, cut short or not, these happen anyway.
        control.should_evaluate |= args.eval_strategy != IntervalStrategy.EPOCH
        control.should_save |= args.save_strategy == "steps"

    def _over(self, args: TrainingArguments, step: int) -> bool:
        over = self.used >= self.minutes * 60.0
        if args.world_size > 1 and torch.distributed.is_initialized():
            if step % _EVERY:
                return False
            answer = torch.tensor([int(over)], device=args.device)
            torch.distributed.broadcast(answer, src=0)
            over = bool(answer.item())
        return over
