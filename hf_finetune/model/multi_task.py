"""One model with a head for each of several tasks, in a form that loads without hf_finetune.

This file, `custom_head.py` and `custom_layers.py` stand alone: `save_pretrained` copies them beside the weights.

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model.decode(model(**inputs).logits)   # [{"species": {"label": "cat", "score": 0.98}, "count": 12.3}, ...]

With hf_finetune imported the flag is not needed. `pipeline` knows no several tasks, and refuses the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

# Relative, so that transformers copies that file too.
from .custom_head import CustomHeadConfig, _CustomHeadModel
from .custom_layers import make_head


class MultiTaskConfig(CustomHeadConfig):
    """Configuration of a model of several tasks; the rest is that of `CustomHeadConfig`.

    Args:
        tasks: of each its "name", its "problem_type" as transformers call it, and its "labels": the names of its
            outputs. The model's outputs are those of the first task, then those of the second, and so on.
        modality: "image-classification" or "text-classification": what the model reads.
        kwargs: of `CustomHeadConfig`; "head" describes the head that each task gets.
    """

    model_type = "hf_finetune_multi_task"

    def __init__(
        self, tasks: Sequence[Mapping[str, Any]] = (), modality: str = "image-classification", **kwargs: Any
    ) -> None:
        self.tasks = [dict(task) for task in tasks]
        self.modality = modality
        super().__init__(**kwargs)

    def places(self) -> dict[str, slice]:
        """Where the outputs of each task, by its name, are among the model's."""
        found, start = {}, 0
        for task in self.tasks:
            found[task["name"]] = slice(start, start + len(task["labels"]))
            start += len(task["labels"])
        return found


class TaskHeads(nn.Module):
    """A head for each task, side by side on the same features: (..., in) to (..., outputs of all tasks)."""

    def __init__(self, settings: Mapping[str, Any], in_features: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, sum(widths.values())
        # "task_", since a ModuleDict has names of its own that a task may have too.
        self.heads = nn.ModuleDict({f"task_{name}": make_head(settings, in_features, n) for name, n in widths.items()})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Outputs (..., out_features) of pooled features (..., in_features)."""
        return torch.cat([head(features) for head in self.heads.values()], dim=-1)

    def of(self, task: str) -> Any:
        """The head of one task."""
        return self.heads[f"task_{task}"]


class MultiTaskModel(_CustomHeadModel):
    """A backbone of transformers or timm with one head for each task."""

    config_class = MultiTaskConfig

    def make_head(self) -> TaskHeads:
        """New heads for the configured tasks."""
        widths = {task["name"]: len(task["labels"]) for task in self.config.tasks}
        return TaskHeads(self.config.head, self.config.in_features, widths)

    def forward(self, labels: None = None, attention_mask: torch.Tensor | None = None, **inputs: Any) -> Any:
        """What the model inside gives, with `logits` (batch, outputs of all tasks).

        Args:
            labels: not taken.
            attention_mask: (batch, tokens), of texts.
            inputs: `pixel_values` (batch, channels, height, width), or `input_ids` (batch, tokens) and what goes along.

        Raises:
            ValueError: labels are given; which loss the tasks have is not a matter of the model.
        """
        if labels is not None:
            raise ValueError("A model of several tasks takes no labels: split() its logits and compute the losses.")
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        if not self.config.is_backbone:
            return self.model(**inputs)
        output = self.model(**{**inputs, "return_dict": True})
        output["logits"] = self.logits_of(output, attention_mask)
        return output

    def split(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """The part (batch, outputs) of each task, by its name, of logits (batch, outputs of all tasks)."""
        return {name: logits[..., place] for name, place in self.config.places().items()}

    def decode(self, logits: torch.Tensor) -> list[dict[str, Any]]:
        """Answers to a batch: {"label", "score"} for classes, a list of those above 0.5, a number or numbers.

        Args:
            logits: (batch, outputs of all tasks).

        Returns:
            for each sample, the answers by the names of the tasks.
        """
        parts = self.split(logits.detach().float().cpu())
        kinds = {task["name"]: (task["problem_type"], task["labels"]) for task in self.config.tasks}
        return [
            {name: _answer(part[row], *kinds[name]) for name, part in parts.items()} for row in range(logits.shape[0])
        ]


def _answer(logits: torch.Tensor, problem_type: str, labels: Sequence[str]) -> Any:
    if problem_type == "regression":
        return logits.item() if len(logits) == 1 else logits.tolist()
    if problem_type == "single_label_classification":
        scores = logits.softmax(-1)
        best = int(scores.argmax())
        return {"label": labels[best], "score": scores[best].item()}
    scores = logits.sigmoid()
    ranked = scores.argsort(descending=True).tolist()
    return [{"label": labels[place], "score": scores[place].item()} for place in ranked if scores[place] > 0.5]


MultiTaskConfig.register_for_auto_class()
MultiTaskModel.register_for_auto_class("AutoModel")
