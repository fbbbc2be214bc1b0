"""Regression targets of any unit: trained as standard scores, given back in their own unit.

A head that starts near 0 with Adam's fixed step takes thousands of steps to reach targets around 200. Training on
(y - mean) / std and folding mean and std into the output layer afterwards gives the same model in a fraction of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hf_finetune.model.custom_layers import MlpHead
from hf_finetune.model.heads import output_layer

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets, each (T,)."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, targets: np.ndarray) -> TargetScale:
        """The scale of targets (N,) or (N, T); a constant target keeps its unit."""
        columns = torch.as_tensor(np.asarray(targets, dtype=np.float64)).reshape(len(targets), -1)
        std = columns.std(dim=0, correction=0)
        return cls(columns.mean(dim=0).float(), torch.where(std > 0, std, torch.ones_like(std)).float())

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
        mean, std = self.mean.to(output.weight), self.std.to(output.weight)
        if output.bias is None:
            output.bias = nn.Parameter(torch.zeros_like(mean))
        output.weight.div_(std.reshape(-1, *[1] * (output.weight.ndim - 1)))
        output.bias.sub_(mean).div_(std)

    @torch.no_grad()
    def fold_into(self, output: Any) -> None:
        """Change an output layer, linear or 1x1 convolution, so that it gives the targets' own unit."""
        weight, bias = output.weight, output.bias
        mean, std = self.mean.to(weight), self.std.to(weight)
        weight.mul_(std.reshape(-1, *[1] * (weight.ndim - 1)))
        if bias is None:
            output.bias = nn.Parameter(torch.zeros_like(mean))
        output.bias.mul_(std).add_(mean)


def output_module(applied: Applied) -> Any:
    """The layer of a strategy's model that gives the outputs; inside a peft model, the copy that learns."""
    model: Any = applied.model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layer = base.get_submodule(output_layer(base, applied.anatomy))
    if hasattr(layer, "modules_to_save"):
        layer = layer.modules_to_save["default"]
    return layer.output if isinstance(layer, MlpHead) else layer
