"""L2-SP (Li, Grandvalet & Davoine 2018, arXiv:1802.01483): pretrained weights stay near where they started.

The penalty lambda / 2 x |w - w0|^2 is not added to the loss, where a large lambda would make steps explode and Adam
would divide it away. It is a proximal step after the optimizer's, as AdamW does with weight decay:

    w <- w0 + (w - w0) / (1 + rate x lambda)

which is the exact minimiser of the penalty plus |w - step|^2 / (2 rate), stable for every lambda: 0 changes nothing,
and 1e9 keeps the checkpoint. `rate` is that of the parameter's group in this step. Pretrained weights get no weight
decay beside it (it would pull to 0); the head, which starts from nothing, gets weight decay alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


class StartingPoint(TrainerCallback):
    """Pulls pretrained parameters back to their start after each step.

    Args:
        applied: the model as loaded, before training or resuming; its pretrained parameters are copied.
        weight: lambda.
    """

    def __init__(self, applied: Applied, weight: float) -> None:
        self.weight = weight
        self.start: dict[int, torch.Tensor] = {
            id(parameter): parameter.detach().clone()
            for name, parameter in applied.model.named_parameters()
            if applied.part_name(name) != "head" and parameter.is_floating_point()
        }

    def without_weight_decay(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimizer's groups with no weight decay where this pulls."""
        return [
            group | {"weight_decay": 0.0} if all(id(p) in self.start for p in group["params"]) else group
            for group in groups
        ]

    @torch.no_grad()
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The proximal step; the groups still have the rate of the step just made."""
        for group in kwargs["optimizer"].param_groups:
            keep = 1.0 / (1.0 + float(group["lr"]) * self.weight)
            for parameter in group["params"]:
                start = self.start.get(id(parameter))
                if start is None or not parameter.requires_grad:
                    continue
                if start.device != parameter.device:
                    start = self.start[id(parameter)] = start.to(parameter.device)
                parameter.copy_(torch.lerp(start, parameter, keep))
