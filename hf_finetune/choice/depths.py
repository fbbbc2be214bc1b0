"""What a checkpoint sees of each row at several depths, pooled: one pass through the frozen model gives all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_finetune.choice.measures import TOP, Depths
from hf_finetune.data import TextCollator, collate_images, image_samples, text_samples
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.model.heads import output_layer
from hf_finetune.training.teacher import inputs_of, pooled

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import Recipe

_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the blocks
_BATCH = 32


class AtDepths(nn.Module):
    """A classifier that answers with what its blocks give, side by side, pooled, and what its output layer receives.

    Maps are averaged over their places, tokens over those that are no padding. A block whose answer does not have a
    row for each sample (packed tokens) is left out.

    Args:
        loaded: the checkpoint with any head.
        in_bf16: whether to compute in bf16.
    """

    def __init__(self, loaded: LoadedModel, in_bf16: bool) -> None:
        super().__init__()
        self.model = loaded.model
        self.in_bf16 = in_bf16
        self.blocks = blocks_of(loaded)
        self.layer = loaded.model.get_submodule(output_layer(loaded.model, loaded.anatomy))
        self.widths: dict[str, int] = {}

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """All depths side by side (batch, sum of widths), as `logits`."""
        seen: dict[str, Any] = {}
        device = next(self.model.parameters()).device.type
        with ExitStack() as open_hooks:
            for name, module in self.blocks.items():
                handle = self.model.get_submodule(module).register_forward_hook(kept_at(name, seen.update))
                open_hooks.callback(handle.remove)
            open_hooks.enter_context(torch.autocast(device, torch.bfloat16, enabled=self.in_bf16))
            given = open_hooks.enter_context(inputs_of(self.layer))
            self.model(**inputs)
        rows = len(next(iter(inputs.values())))
        parts = {name: mean_of(seen[name], inputs, rows) for name in self.blocks if name in seen}
        found = {name: part for name, part in parts.items() if part is not None}
        found[TOP] = pooled(given, inputs)
        self.widths = {name: part.shape[1] for name, part in found.items()}
        return SequenceClassifierOutput(logits=torch.cat(list(found.values()), dim=1))  # type: ignore[arg-type]


def blocks_of(loaded: LoadedModel) -> dict[str, str]:
    """Modules of the blocks at a quarter, half, three quarters and all of the depth, by what they are called."""
    blocks = loaded.anatomy.blocks
    numbers = sorted({max(1, round(share * len(blocks))) for share in _SHARES})
    return {f"block {n} of {len(blocks)}": blocks[n - 1].modules[0] for n in numbers}


def read_depths(model: AtDepths, recipe: Recipe, processor: Any, rows: Dataset) -> Depths:
    """Features of rows at all depths, in their order. Texts are cut to the model's length; windows are not read.

    Raises:
        UserError: the processor gives images of different sizes, or one row does not fit into memory.
    """
    began = time.perf_counter()
    samples, collate = samples_of(recipe, processor, rows.remove_columns("label"))
    found = predict_logits(model, samples, collate, _BATCH)
    places = np.cumsum([0, *model.widths.values()])
    parts = [found[:, start:end] for start, end in pairwise(places)]
    return Depths(tuple(model.widths), parts, (time.perf_counter() - began) / len(rows))


def joined(parts: Sequence[Depths]) -> Depths:
    """The same depths of the rows of all parts."""
    features = [np.concatenate(values) for values in zip(*(part.features for part in parts), strict=True)]
    return Depths(parts[0].names, features, parts[-1].seconds)


def samples_of(recipe: Recipe, processor: Any, rows: Dataset) -> tuple[Any, Any]:
    """Rows as the checkpoint takes them, unchanged, and their collator."""
    if recipe.task == "text-classification":
        limit, most = recipe.data.max_length, processor.model_max_length
        return text_samples(rows, processor, max_length=min(limit, most) if limit else None), TextCollator(processor)
    return image_samples(rows, processor), collate_images


def kept_at(name: str, keep: Callable[[dict[str, Any]], None]) -> Any:
    """A forward hook that hands over what a module answers, by its name."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        keep({name: output})

    return hook


def mean_of(output: Any, inputs: dict[str, torch.Tensor], rows: int) -> torch.Tensor | None:
    """(rows, width) float32 of a block's answer; None where it has not one row for each sample."""
    value = next((item for item in _flat(output) if torch.is_tensor(item)), None)
    if value is None or len(value) != rows or not value.is_floating_point():
        return None
    value = value.float()
    if value.ndim == 4:
        last = value.shape[1] == value.shape[2] != value.shape[3]  # (rows, height, width, channels): Swin in timm
        return value.mean((1, 2) if last else (2, 3))
    if value.ndim == 3:
        mask = inputs.get("attention_mask")
        if mask is None or mask.shape != value.shape[:2]:
            return value.mean(1)
        weights = mask.unsqueeze(-1).float()
        return (value * weights).sum(1) / weights.sum(1).clamp(min=1)
    return value if value.ndim == 2 else None


def _flat(output: Any) -> Any:
    return output if isinstance(output, (tuple, list)) else (output,)
