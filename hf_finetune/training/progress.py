"""What a person sees while training runs: one bar with loss and metric, one line an evaluation."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.console import say


class Progress(TrainerCallback):
    """A progress bar on rank 0, and a line for each evaluation.

    Args:
        best_metric: name of the validation metric that chooses the checkpoint.
    """

    def __init__(self, best_metric: str) -> None:
        self.best_metric = best_metric
        self.bar: Any = None
        self.shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step where training starts or goes on."""
        if state.is_world_process_zero:
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
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest training loss in the bar."""
        logs = kwargs.get("logs") or {}
        if self.bar is not None and "loss" in logs:
            self.shown["loss"] = f"{logs['loss']:.4f}"
            self.bar.set_postfix(self.shown)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Print the validation scores; the Trainer decides only afterwards whether they are the best."""
        metrics = kwargs.get("metrics") or {}
        value = metrics.get(f"eval_{self.best_metric}")
        if self.bar is None or value is None:
            return
        self.shown[self.best_metric] = f"{value:.4f}"
        self.bar.set_postfix(self.shown)
        best = state.best_metric is None or (value > state.best_metric) == bool(args.greater_is_better)
        better = state.best_metric is None or (value != state.best_metric and best)
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
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
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
