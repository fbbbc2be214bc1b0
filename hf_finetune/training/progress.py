"""What a person sees while training runs: on a terminal a live table, in a notebook a bar, in a file plain lines."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.console import is_muted, say
from hf_finetune.training.live_table import Evaluation, LiveTable


class Progress(TrainerCallback):
    """A table or a progress bar on rank 0, and a line for each evaluation.

    Args:
        best_metric: name of the validation metric that chooses the checkpoint.
        can_be_chosen: whether the step that is validated is saved; no other is called the best.
    """

    def __init__(self, best_metric: str, can_be_chosen: Callable[[], bool]) -> None:
        self.best_metric = best_metric
        self.can_be_chosen = can_be_chosen
        self.bar: Any = None
        self.table: LiveTable | None = None
        self.shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step where training starts or goes on."""
        if is_muted():
            return
        if state.is_world_process_zero and at_a_terminal():
            self.table = LiveTable(self.best_metric, state.max_steps, state.global_step)
            self.table.open()
        elif state.is_world_process_zero:
            # A file or a pipe gets the evaluation lines alone.
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                desc="training",
                disable=not sys.stderr.isatty() and "ipykernel" not in sys.modules,
                dynamic_ncols=True,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.table is not None:
            self.table.step(state.global_step)
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest training loss in the bar."""
        logs = kwargs.get("logs") or {}
        if self.table is not None and "loss" in logs:
            self.table.loss(logs["loss"])
        if self.bar is not None and "loss" in logs:
            self.shown["loss"] = f"{logs['loss']:.4f}"
            self.bar.set_postfix(self.shown)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Print the validation scores; the Trainer decides only afterwards whether they are the best."""
        metrics = kwargs.get("metrics") or {}
        value = metrics.get(f"eval_{self.best_metric}")
        if value is None or (self.bar is None and self.table is None):
            return
        before = state.best_metric
        better = before is None or (value > before if args.greater_is_better else value < before)
        better = better and not math.isnan(value) and self.can_be_chosen()
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        if self.table is not None:
            training = "" if loss is None else f"{loss:.4f}"
            row = (f"{state.epoch or 0:.3g}", f"{state.global_step:,}", training, f"{metrics['eval_loss']:.4f}")
            self.table.evaluated(Evaluation(*row, f"{value:.4f}", better))
            return
        self.shown[self.best_metric] = f"{value:.4f}"
        self.bar.set_postfix(self.shown)
        training = "" if loss is None else f"  training loss {loss:.4f}"
        end = f"step {state.global_step} of {state.max_steps}"
        if args.max_steps <= 0:
            end = f"epoch {state.epoch or 0:.4g} of {args.num_train_epochs:g}  step {state.global_step}"
        line = (
            f"{end}{training}  "
            f"validation loss {metrics['eval_loss']:.4f}  {self.best_metric} {value:.4f}"
            f"{'  best so far' if better else ''}"
        )
        with self.bar.external_write_mode(file=sys.stdout):
            say(line)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the table or the bar."""
        if self.table is not None:
            self.table.close()
            self.table = None
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def at_a_terminal() -> bool:
    """Whether a table can be drawn again and again in its place, and no lines are wanted in a file instead."""
    if not (sys.stderr.isatty() and sys.stdout.isatty()):  # the table would take with it what goes to the file
        return False
    return os.environ.get("TERM", "") not in ("", "dumb") and "ipykernel" not in sys.modules
