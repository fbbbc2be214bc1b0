"""How the losses of several tasks are put together (`loss.balance`).

- fixed: sum of weight x loss.
- uncertainty: sum of weight x (loss / (c x sigma^2) + log sigma), with a variance sigma^2 of each task that is learned
  along as s = log sigma^2, from 0; c is 2 for numbers and 1 for classes (Kendall et al. 2018, arXiv:1705.07115,
  equations 7 and 10). It ends near sigma^2 = 2 loss / c: the harder task counts less.
- equal: sum of weight x loss / its own running mean: every task pulls as hard, whatever the size of its loss. It is the
  gradient of the sum of the losses' logarithms, their geometric mean (Chennupati et al. 2019, arXiv:1904.08492), with
  the loss of the batch in the divisor replaced by a running mean, which starts at what an untrained head scores.

What is learned or counted along is no part of the model; checkpoints keep it, so that a resumed run is the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.errors import UserError

FILE = "balance.safetensors"
_SMOOTHING = 0.98  # of the running mean, a step
# s is one number a task and has far to go; its curvature is 1/2, so that a rate made for SGD would overshoot.
_FASTER, _FASTEST = 10.0, 0.01


class Balance(TrainerCallback):
    """The sum of the losses with fixed weights; see the module for the others.

    Args:
        names: of the T tasks.
        weights: of each.
    """

    kind = "fixed"

    def __init__(self, names: Sequence[str], weights: Sequence[float]) -> None:
        self.names = list(names)
        self.weights = torch.tensor(list(weights), dtype=torch.float32)

    def __call__(self, losses: torch.Tensor) -> torch.Tensor:
        """The loss of a training batch, from those of the tasks (T,)."""
        return (self.weights.to(losses.device) * losses).sum()

    def now(self) -> dict[str, float]:
        """What each task's loss is multiplied by at this time."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def parameter_groups(self, groups: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
        """The optimizer's groups, with one of what is learned here."""
        return groups

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what steps that were only tried out, for their speed, have left."""
        self._forget()

    def save(self, folder: Path) -> None:
        """Write what is learned or counted into a checkpoint, before it is sealed."""
        from safetensors.torch import save_file

        if (kept := self._kept()) is not None:
            save_file({self.kind: kept.detach().cpu().contiguous()}, str(folder / FILE))

    def load(self, folder: Path) -> None:
        """Read it back.

        Raises:
            UserError: the checkpoint has none of this kind.
        """
        from safetensors.torch import load_file

        kept = self._kept()
        if kept is None:
            return
        stored = load_file(str(folder / FILE)) if (folder / FILE).is_file() else {}
        if self.kind not in stored or stored[self.kind].shape != kept.shape:
            raise UserError(f"{folder} was written without loss.balance={self.kind}: give another output_dir.")
        with torch.no_grad():
            kept.copy_(stored[self.kind])

    def _kept(self) -> torch.Tensor | None:
        return None

    def _forget(self) -> None:
        """Drop what waits for the end of a step."""


class Uncertainty(Balance):
    """Weights by variances that are learned.

    Args:
        names: of the T tasks.
        weights: of each.
        factors: c of each: 2 for numbers, 1 for classes.
    """

    kind = "uncertainty"

    def __init__(self, names: Sequence[str], weights: Sequence[float], factors: Sequence[float]) -> None:
        super().__init__(names, weights)
        self.factors = torch.tensor(list(factors), dtype=torch.float32)
        self.log_variances = torch.nn.Parameter(torch.zeros(len(self.names)))

    def __call__(self, losses: torch.Tensor) -> torch.Tensor:
        """The loss of a training batch, from those of the tasks (T,)."""
        s, at = self.log_variances, losses.device
        return (self.weights.to(at) * (torch.exp(-s) * losses / self.factors.to(at) + s / 2)).sum()

    def now(self) -> dict[str, float]:
        """What each task's loss is multiplied by at this time."""
        found = self.weights * torch.exp(-self.log_variances.detach().cpu()) / self.factors
        return dict(zip(self.names, found.tolist(), strict=True))

    def parameter_groups(self, groups: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
        """The optimizer's groups, and one of the log variances: ten times the fastest rate, 0.01 at most."""
        self.log_variances.data = self.log_variances.data.to(device)
        own = {
            "name": "log variances of the tasks",
            "params": [self.log_variances],
            "lr": min(_FASTER * max(group["lr"] for group in groups), _FASTEST),
            "weight_decay": 0.0,
        }
        stages = zip(*(group["rates"] for group in groups), strict=True)
        own["rates"] = tuple(min(_FASTER * max(rates), _FASTEST) for rates in stages)
        return [*groups, own]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The mean gradient over the processes: DDP knows the model's own parameters alone."""
        if args.world_size > 1 and self.log_variances.grad is not None:
            distributed.all_reduce(self.log_variances.grad)
            self.log_variances.grad /= args.world_size

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the gradient: the Trainer does so for the model's own parameters alone."""
        self._forget()

    def _kept(self) -> torch.Tensor | None:
        return self.log_variances

    def _forget(self) -> None:
        self.log_variances.grad = None


class Equal(Balance):
    """Weights by the running size of each loss.

    Args:
        names: of the T tasks.
        weights: of each.
        start: the loss of each with an untrained head.
    """

    kind = "equal"

    def __init__(self, names: Sequence[str], weights: Sequence[float], start: Sequence[float]) -> None:
        super().__init__(names, weights)
        self.size = torch.tensor(list(start), dtype=torch.float32)
        self._seen: list[torch.Tensor] = []

    def __call__(self, losses: torch.Tensor) -> torch.Tensor:
        """The loss of a training batch, from those of the tasks (T,)."""
        self._seen.append(losses.detach())
        return (self.weights.to(losses.device) * losses / self.size.to(losses.device)).sum()

    def now(self) -> dict[str, float]:
        """What each task's loss is multiplied by at this time."""
        return dict(zip(self.names, (self.weights / self.size.cpu()).tolist(), strict=True))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the running mean by the losses of this step, of all its batches and processes."""
        mean = torch.stack(self._seen).mean(0)
        self._forget()
        if args.world_size > 1:
            distributed.all_reduce(mean)
            mean /= args.world_size
        size = _SMOOTHING * self.size.to(mean.device) + (1 - _SMOOTHING) * mean
        self.size = size.clamp(min=1e-4)  # a task that is solved would outweigh all others

    def _kept(self) -> torch.Tensor | None:
        return self.size

    def _forget(self) -> None:
        self._seen.clear()
