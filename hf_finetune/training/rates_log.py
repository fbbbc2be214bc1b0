"""The learning rate of every kind of group beside the one that the Trainer logs, for the page of a run."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class RatesLog(TrainerCallback):
    """Adds "rates" to each entry of the log that has a training loss: {"body": [least, greatest], "head": ...}.

    Kept in the Trainer's log, it comes through checkpoints and resumes.
    """

    def __init__(self) -> None:
        self._rates: dict[str, list[float]] = {}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the rates of the step that was just made: the schedule has not moved on yet."""
        optimizer = kwargs.get("optimizer")
        self._rates = {}
        for group in getattr(optimizer, "param_groups", ()):
            kind, rate = str(group.get("name", "all")).partition(" ")[0], float(group["lr"])
            low, high = self._rates.get(kind, [rate, rate])
            self._rates[kind] = [min(low, rate), max(high, rate)]

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the Trainer has logged."""
        if self._rates and state.log_history and "loss" in state.log_history[-1]:
            state.log_history[-1]["rates"] = dict(self._rates)  # type: ignore[assignment]
