"""Regression targets of any unit: trained as standard scores, given back in their own unit.

A head that starts near 0 with Adam's fixed step takes thousands of steps to reach targets around 200. Training on
(y - mean) / std and folding mean and std into the output layer afterwards gives the same model in a fraction of them.
A model is saved and loaded as its class is written: an output layer without bias (GPT-2's) has no place for a mean, so
its targets are only scaled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_finetune.model.custom_layers import MlpHead
from hf_finetune.model.heads import output_layer

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets, each (T,); see `of` for an output layer without bias."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, targets: np.ndarray, *, centred: bool = True) -> TargetScale:
        """The scale of targets (N,) or (N, T); where their spread is zero, they keep their unit.

        Args:
            targets: of training.
            centred: whether the output layer has a bias; without one, mean is 0 and std the root of the mean square.
        """
        columns = torch.as_tensor(np.asarray(targets, dtype=np.float64)).reshape(len(targets), -1)
        mean = columns.mean(dim=0) if centred else torch.zeros_like(columns[0])
        std = (columns - mean).square().mean(dim=0).sqrt()
        return cls(mean.float(), torch.where(std > 0, std, torch.ones_like(std)).float())

    def standard(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets (N,) or (N, T) as standard scores (N, T)."""
        columns = targets.float().reshape(len(targets), -1)
        return (columns - self.mean.to(columns.device)) / self.std.to(columns.device)

    def natural(self, scores: torch.Tensor) -> torch.Tensor:
        """Standard scores (N, T) in the targets' own unit."""
        return scores.float() * self.std.to(scores.device) + self.mean.to(scores.device)

    @torch.no_grad()
    def take_out_of(self, output: Any) -> None:
        """Undo `fold_into`: an output layer that gives the targets' own unit gives standard scores."""
        weight, bias = output.weight, output.bias
        mean, std = self.mean.to(weight), self.std.to(weight)
        weight.div_(std.reshape(-1, *[1] * (weight.ndim - 1)))
        if bias is not None:
            bias.sub_(mean).div_(std)

    @torch.no_grad()
    def fold_into(self, output: Any) -> None:
        """Change an output layer, linear or 1x1 convolution, so that it gives the targets' own unit."""
        weight, bias = output.weight, output.bias
        mean, std = self.mean.to(weight), self.std.to(weight)
        weight.mul_(std.reshape(-1, *[1] * (weight.ndim - 1)))
        if bias is not None:
            bias.mul_(std).add_(mean)


def scale_of(targets: np.ndarray, applied: Applied, fresh: Iterable[str]) -> TargetScale:
    """The scale of a run's targets, taken out of an output layer that was kept: that one answers in their own unit.

    Args:
        targets: of the training rows, (N,) or (N, T).
        applied: the model with its strategy.
        fresh: names of the parameters that are newly initialised.
    """
    output = output_module(applied)
    scale = TargetScale.of(targets, centred=output.bias is not None)
    layer = output_layer(_base(applied), applied.anatomy)
    if not any(name.startswith(f"{layer}.") for name in fresh):
        scale.take_out_of(output)
    return scale


def output_module(applied: Applied) -> Any:
    """The layer of a strategy's model that gives the outputs; inside a peft model, the copy that learns."""
    base = _base(applied)
    layer = base.get_submodule(output_layer(base, applied.anatomy))
    if hasattr(layer, "modules_to_save"):
        layer = layer.modules_to_save["default"]
    return layer.output if isinstance(layer, MlpHead) else layer


def _base(applied: Applied) -> Any:
    model: Any = applied.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model
