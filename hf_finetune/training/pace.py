"""Where the time of training goes: waiting for data, forward, backward, optimizer, evaluation, checkpoints.

A stopwatch that belongs to one phase at any moment, so that the phases add up to the whole. On a GPU the marks are
events in its stream, read once they have passed: the host is never made to wait, and a GPU that waits for data shows
as `data`, because no mark passes before the next batch is there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from hf_finetune.console import say

PHASES = ("data", "forward", "backward", "optimizer", "evaluation", "checkpoints", "other")
# From which share of the time on a phase limits the speed, and what can be done then. transformers refuses checkpoints
# without an evaluation of their step, so each of these is said with all that it takes.
_STEPS = "training.eval_strategy=steps training.eval_steps=N training.save_strategy=steps training.save_steps"
_REMEDIES = {
    "data": (0.3, "the model waits for its data: see training.dataloader_num_workers, and smaller files"),
    "evaluation": (0.4, f"validate fewer rows (data.max_eval_samples) or less often ({_STEPS}=N)"),
    "checkpoints": (0.2, f"save less often ({_STEPS}=M, M a multiple of N)"),
    "optimizer": (0.4, "the optimizer's step: a larger batch (training.per_device_train_batch_size) needs fewer"),
    "other": (0.3, "what comes between the steps, logging (training.logging_steps) and the start of an epoch"),
}
_KEPT_ROWS = (
    "the head waits for its kept rows: a larger batch (training.per_device_train_batch_size) asks for them less often"
)


class _HostMark:
    """A moment on the clock of this process."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    passed = True

    def since(self, before: _HostMark) -> float:
        return self.at - before.at


class _StreamMark:
    """A place in the GPU's stream of work."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    @property
    def passed(self) -> bool:
        return bool(self.event.query())

    def since(self, before: _StreamMark) -> float:
        return float(before.event.elapsed_time(self.event)) / 1000.0


class Pace(TrainerCallback, ExportableState):
    """Seconds of each phase of training, over all the legs of a run that was interrupted.

    Args:
        seconds: by phase, of the legs before this one.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0) | (seconds or {})
        self.kept_rows = False  # whether all samples are rows of kept features, which no worker loads
        self._phase: str | None = None
        self._since: Any = None
        self._mark: type[_HostMark] | type[_StreamMark] = _HostMark
        self._open: deque[tuple[str, Any, Any]] = deque()

    def enter(self, phase: str | None) -> str | None:
        """The time from now on belongs to this phase; outside of training nothing happens.

        Returns:
            the phase before.
        """
        before = self._phase
        if before is None:
            return None
        now = self._mark()
        self._open.append((before, self._since, now))
        self._since, self._phase = now, phase
        while self._open and self._open[0][2].passed:
            self._settle()
        return before

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """The time inside belongs to this phase, and afterwards to the one before."""
        before = self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the watch."""
        self._mark = _StreamMark if args.device.type == "cuda" else _HostMark
        self._since, self._phase = self._mark(), "other"

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Between accumulated batches the next one is made ready."""
        self.enter("data")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What comes between two steps, logging and the like, is none of the phases."""
        self.enter("other")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the watch."""
        self.enter(None)
        if self._mark is _StreamMark:
            torch.cuda.synchronize()
        while self._open:
            self._settle()
        if words := self.in_words():
            say(words)

    def state(self) -> dict[str, Any]:
        """As the checkpoint keeps it."""
        return {"args": {"seconds": dict(self.seconds)}, "attributes": {}}

    def facts(self) -> dict[str, float]:
        """Seconds of each phase, as metrics.json holds them."""
        return {phase: round(seconds, 3) for phase, seconds in self.seconds.items()}

    def in_words(self) -> str | None:
        """One line: the shares, and what limits the speed; None where nothing was measured."""
        total = sum(self.seconds.values())
        if not total:
            return None
        shares = {phase: seconds / total for phase, seconds in self.seconds.items()}
        ordered = sorted(shares, key=lambda phase: -shares[phase])
        shown = ", ".join(f"{phase} {shares[phase]:.0%}" for phase in ordered if shares[phase] >= 0.005)
        return f"time of training: {shown}. Bottleneck: {_bottleneck(shares, self.kept_rows)}."

    def _settle(self) -> None:
        phase, since, now = self._open.popleft()
        self.seconds[phase] += now.since(since)


def _bottleneck(shares: dict[str, float], kept_rows: bool) -> str:
    """The largest phase of those that take more than they should; else the largest, arithmetic being one."""
    arithmetic = shares["forward"] + shares["backward"]
    over = [phase for phase, (share, _) in _REMEDIES.items() if shares[phase] > share]
    largest = max(over or _REMEDIES, key=lambda phase: shares[phase])
    if not over and shares[largest] <= arithmetic:
        return "the model's own arithmetic (forward and backward)"
    remedy = _KEPT_ROWS if largest == "data" and kept_rows else _REMEDIES[largest][1]
    return f"{largest}; {remedy}"


class PacedTrainer(Trainer):
    """A Trainer that knows where its time went: see `pace`."""

    def __init__(self, *args: Any, callbacks: list[TrainerCallback] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, callbacks=[Pace(), *(callbacks or ())], **kwargs)

    @property
    def pace(self) -> Pace:
        """The stopwatch; a resume makes a new one from the checkpoint."""
        return next(entry for entry in self.callback_handler.callbacks if isinstance(entry, Pace))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The next batches; what is done to them up to the forward pass is time of the data too."""
        self.pace.enter("data")
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass; what follows it is the optimizer's time."""
        self.pace.enter("data")
        loss = super().training_step(*args, **kwargs)
        self.pace.enter("optimizer")
        return loss

    @contextmanager
    def compute_loss_context_manager(self) -> Any:
        """Around the forward pass of a training step, and nothing else."""
        self.pace.enter("forward")
        with super().compute_loss_context_manager():
            yield
        self.pace.enter("backward")

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's."""
        with self.pace.during("evaluation"):
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.pace.during("checkpoints"):
            super()._save_checkpoint(*args, **kwargs)

    def _load_best_model(self) -> None:
        with self.pace.during("checkpoints"):
            super()._load_best_model()
