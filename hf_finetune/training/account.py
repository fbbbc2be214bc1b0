"""What training took and reached, over all the legs of a run that was interrupted."""

from __future__ import annotations

import time
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState


class Account(TrainerCallback, ExportableState):
    """Seconds of training, kept in the checkpoints.

    Args:
        seconds: of the legs before this one, up to the checkpoint that it goes on from.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.earlier = 0.0  # of it, those of the legs before this one
        self._since: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.earlier = self.seconds
        self._since = time.perf_counter()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock."""
        self.seconds, self._since = self._now(), None

    def state(self) -> dict[str, Any]:
        """As the checkpoint keeps it."""
        return {"args": {"seconds": self._now()}, "attributes": {}}

    def _now(self) -> float:
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)


def account_of(trainer: Trainer) -> Account:
    """The run's account."""
    return next(entry for entry in trainer.callback_handler.callbacks if isinstance(entry, Account))


def mean_training_loss(log_history: list[dict[str, float]]) -> float | None:
    """The mean of the logged training losses, each weighed by its steps; unlike the Trainer's it survives a resume."""
    total, last = 0.0, 0
    for entry in log_history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = int(entry["step"])
    return total / last if last else None
