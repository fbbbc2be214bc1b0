"""Loss and gradient of every step are looked at before they reach the weights: what is no number stops, or is left out.

On a CPU at once. On a GPU two steps later, so that the host does not wait for it at every step, but before anything is
validated or saved; where steps may be left out, at once too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hf_finetune.console import warn
from hf_finetune.errors import UserError
from hf_finetune.training import checkpoints
from hf_finetune.training.batch_rows import rates_in_words, rows_in_words, rows_of_step, suspects_in_words
from hf_finetune.training.whole_splits import WholeSplits

_BEHIND = 2  # steps that a GPU may be ahead of what is looked at


class Look(NamedTuple):
    """What a step came to.

    Args:
        step: updates before it.
        batches: that were accumulated.
        loss: their sum, ().
        norm: of the gradient, (); None where it cannot be told, or fp16 may overflow and be scaled anew.
        finite: whether both are numbers, ().
    """

    step: int
    batches: int
    loss: torch.Tensor
    norm: torch.Tensor | None
    finite: torch.Tensor

    def in_words(self) -> str:
        """What is no number."""
        loss = float(self.loss)
        if not math.isfinite(loss) or self.norm is None:
            return f"The training loss is {loss}"
        return f"The gradient is {float(self.norm)}, though the training loss is {loss:.4g},"


class SkippedSteps(TrainerCallback, ExportableState):
    """How many steps were left out, over all the legs of a run.

    Args:
        count: before this leg.
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state(self) -> dict[str, Any]:
        """As the checkpoint keeps it."""
        return {"args": {"count": self.count}, "attributes": {}}


class FiniteSteps(WholeSplits):
    """A Trainer that takes no step with a loss or a gradient that is no number."""

    may_skip = 0  # steps of a run that may be left out
    row_names: Callable[[str, Sequence[int]], list[str]] | None = None  # (split, rows) -> as the user knows them

    def __init__(self, *args: Any, callbacks: list[TrainerCallback] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, callbacks=[SkippedSteps(), *(callbacks or ())], **kwargs)
        self._losses: list[torch.Tensor] = []
        self._waiting: deque[tuple[Look, torch.Tensor, Any]] = deque()
        self._before: tuple[torch.Tensor, dict[str, torch.Tensor]] | None = None
        self._left_out = 0  # steps since the last log
        self._logged_at = 0

    @property
    def skipped(self) -> SkippedSteps:
        """The count; a resume makes a new one from the checkpoint."""
        return next(entry for entry in self.callback_handler.callbacks if isinstance(entry, SkippedSteps))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass; its loss is remembered until the step."""
        if not self._losses and self.may_skip:
            found = {name: buffer.clone() for name, buffer in self.model.named_buffers() if buffer.is_floating_point()}
            self._before = self._tr_loss.clone(), found
        loss = super().training_step(*args, **kwargs)
        self._losses.append(loss.detach())
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        look = self._look(norm)
        self._logged_at = self._globalstep_last_logged
        if self.may_skip:
            if self._agreed(look):
                return norm
            self._leave_out(look)
            return None
        if self.args.device.type == "cuda":
            told = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(look.finite, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._waiting.append((look, told, event))
            self._settle(_BEHIND)
        # On a CPU the number lies in the host's own memory: nothing is asked of a device.
        elif not (look.finite.numpy() if look.finite.device.type == "cpu" else look.finite):
            self._stop(look)
        return norm

    def _look(self, norm: Any) -> Look:
        losses, self._losses = self._losses, []
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        known = type(norm) is torch.Tensor and getattr(self.accelerator, "scaler", None) is None
        finite = torch.isfinite(loss + norm if known else loss)  # a sum is finite where both are
        return Look(self.state.global_step, len(losses), loss, norm if known else None, finite)

    def _settle(self, behind: int = 0) -> None:
        """Look at all steps but the last so many; on several processes at the same ones."""
        while len(self._waiting) > behind:
            look, told, event = self._waiting.popleft()
            event.synchronize()
            if not told:
                self._waiting.clear()
                self._stop(look, intact=False)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._losses, self._waiting = [], deque()
        super()._run_epoch(*args, **kwargs)
        self._settle()

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; not of weights that are none."""
        self._settle()
        return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._settle()
        super()._save_checkpoint(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer's; the loss is the mean of the steps that were taken, and absent where there was none."""
        if "loss" in logs:
            steps, left_out, self._left_out = self.state.global_step - self._logged_at, self._left_out, 0
            loss = logs.pop("loss")
            if not math.isfinite(loss):
                raise UserError(f"The training loss is {loss} at step {self.state.global_step}. {self._remedy()}")
            if left_out < steps:
                logs = {"loss": loss * steps / (steps - left_out) if left_out else loss, **logs}
        if not math.isfinite(loss := logs.get("eval_loss", 0.0)):
            rows = rows_in_words(self, self.not_finite, "validation")
            named = f"Its outputs are no numbers for {rows}. " if rows else ""
            raise UserError(f"The validation loss is {loss} at step {self.state.global_step}. {named}{self._remedy()}")
        super().log(logs, *args, **kwargs)

    # --- what becomes of such a step -------------------------------------------------------------------------------

    def _agreed(self, look: Look) -> bool:
        """Whether the step is right on every process: either all take it, or none does."""
        right = look.finite.to(torch.int32)
        if self.args.world_size > 1 and distributed.is_initialized():
            distributed.all_reduce(right, op=distributed.ReduceOp.MIN)
        return bool(right)

    def _leave_out(self, look: Look) -> None:
        """No update of the weights; statistics of layers and the sum of losses are as before the step."""
        if self.skipped.count >= self.may_skip:
            self._stop(look)
        self.skipped.count += 1
        self._left_out += 1
        rows = rows_in_words(self, rows_of_step(self, look.step, look.batches))
        warn(
            f"step {look.step + 1} is left out, the {self.skipped.count}. of at most {self.may_skip} "
            f"(training.skip_nonfinite_steps): {look.in_words().rstrip(',').lower()}{rows and f'; its rows: {rows}'}."
        )
        self.accelerator.gradient_state._set_sync_gradients(False)  # what makes accelerate's optimizer wait
        assert self._before is not None
        loss, buffers = self._before
        self._tr_loss.copy_(loss)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])

    def _stop(self, look: Look, intact: bool = True) -> None:
        """End training.

        Args:
            look: at the step.
            intact: whether the weights are still those before the step.
        """
        rows = rows_of_step(self, look.step, look.batches)
        found = [rows_in_words(self, rows), suspects_in_words(self, rows) if intact else ""]
        every = [found]
        gradient_too = look.norm is not None and not math.isfinite(float(look.norm))
        if self.args.world_size > 1 and distributed.is_initialized() and (gradient_too or self.may_skip):
            every = [found] * self.args.world_size  # all are here: gradients are everybody's
            distributed.all_gather_object(every, found)
        lines = [f"{look.in_words()} at step {look.step + 1} (epoch {self.state.epoch or 0:.3g})."]
        for process, (named, suspects) in enumerate(every):
            whose = f" on process {process}" if len(every) > 1 else ""
            lines += [f"  its rows{whose}: {named}"] if named else []
            lines += [f"  one by one{whose}: {suspects}"] if suspects else []
        raise UserError("\n".join([*lines, f"  rates: {rates_in_words(self.optimizer)}", self._remedy()]))

    def _remedy(self) -> str:
        good = checkpoints.newest_whole(Path(self.args.output_dir)) if self.args.process_index == 0 else None
        kept = f"The last good checkpoint is {good}." if good is not None else "There is no checkpoint yet."
        return (
            f"{kept} Lower training.learning_rate ({self.args.learning_rate:g}), use precision=no, or look for extreme "
            "inputs and targets in these rows, and give another output_dir; or leave out up to N such steps with "
            "training.skip_nonfinite_steps=N."
        )
