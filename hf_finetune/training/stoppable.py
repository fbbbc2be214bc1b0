"""Training that is asked to stop by a signal: all processes stop behind the same step, with a checkpoint of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerControl

from hf_finetune import stopping
from hf_finetune.training.exact_resume import ExactTrainer

_EVERY = 0.5  # seconds between two questions among processes, about
_AT_MOST = 50  # steps


class StoppableTrainer(ExactTrainer):
    """A Trainer that saves and stops where `stopping` has heard a signal; what is due with the step is done first."""

    control: TrainerControl
    _sealed_step = -1
    _agreement: Agreement | None = None

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._sealed_step, self._agreement = -1, None
        if self.args.world_size > 1 and distributed.is_initialized():
            self._agreement = Agreement()
        with stopping.finishing():
            outcome = super()._inner_training_loop(*args, **kwargs)
            self._stop_if_asked(now=True)  # a signal that came after the last step
        return outcome

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, model: torch.nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if not self.closing:
            self._stop_if_asked(model, trial)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self._sealed_step = self.state.global_step

    def _stop_if_asked(self, model: torch.nn.Module | None = None, trial: Any = None, now: bool = False) -> None:
        by = stopping.current().by
        asked = by is not None if self._agreement is None else self._agreement.asked(by is not None, now)
        if not asked:
            return
        if model is not None:
            if self._sealed_step != self.state.global_step:
                self._save_checkpoint(model, trial)
                self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)  # of this leg
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        saved = f", saved in {folder}" if self._sealed_step == step else ""
        heard = by or "a signal to another process"
        stopping.current().by = heard  # what a launcher sends now, seeing the other process end, is no news
        raise stopping.Stopped(heard, f"after step {step} of {self.state.max_steps}{saved}")

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loader, whose workers leave signals to this process."""
        loader = super()._get_dataloader(*args, **kwargs)
        base: Any = getattr(loader, "base_dataloader", loader)
        if base.num_workers:
            base.worker_init_fn = stopping.deaf_worker(base.worker_init_fn)
        return loader


class Agreement:
    """Whether any process was asked to stop: they tell each other about every half second, behind the same step.

    Over gloo, so that no process waits for its GPU. How many steps that is, is agreed on with the answer.
    """

    def __init__(self) -> None:
        self._group: Any = None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")
        self._calls, self._next = 0, 1
        self._since = (0, time.monotonic())

    def asked(self, mine: bool, now: bool = False) -> bool:
        """The same answer on every process, which all must call equally often.

        Args:
            mine: whether this process was asked to.
            now: do not wait for the half second.
        """
        self._calls += 1
        if self._calls < self._next and not now:
            return False
        calls, since = self._since
        each = (time.monotonic() - since) / (self._calls - calls)
        self._since = (self._calls, time.monotonic())
        steps = max(1, min(_AT_MOST, int(_EVERY / max(each, 1e-6))))
        told = torch.tensor([int(mine), steps])
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX, group=self._group)
        self._next = self._calls + int(told[1])
        return bool(told[0])
