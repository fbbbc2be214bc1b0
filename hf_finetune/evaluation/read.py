"""A model's answer to a batch whose samples it sees in several pieces: windows of a text, views of an image.

The pieces' logits are averaged: the geometric mean of the pieces' probabilities, up to a factor that softmax removes.
It needs no case of its own for multi-label and regression. We have not measured it against the mean of probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_finetune.data import TEXT_OF_WINDOW
from hf_finetune.evaluation.views import Views, views_of
from hf_finetune.model.replay import GIVEN, attached


def read(
    model: nn.Module, features: Mapping[str, torch.Tensor], tta: Views = "none", at_once: int | None = None
) -> Any:
    """The model's output for a batch, with `logits` (N, C): one row for each text or image.

    Args:
        model: a classification model.
        features: what the model takes, without labels; of texts in windows also `text_of_window`; of samples whose
            frozen prefix has run already, what it gave.
        tta: the views of an image; for evaluation.
        at_once: most windows in memory together, where no gradient is wanted; None for all.
    """
    if GIVEN in features:
        return attached(model)(model, features)
    owners = features.get(TEXT_OF_WINDOW)
    if owners is None and tta == "none":
        return model(**features)  # bit for bit the model's own
    if owners is None:
        rest = {name: value for name, value in features.items() if name != "pixel_values"}
        logits = [model(pixel_values=view, **rest).logits.float() for view in views_of(features["pixel_values"], tta)]
        return SequenceClassifierOutput(logits=torch.stack(logits).mean(0))  # type: ignore[arg-type]
    inputs = {name: value for name, value in features.items() if name != TEXT_OF_WINDOW}
    step = len(owners) if at_once is None or torch.is_grad_enabled() else at_once
    parts = [
        model(**{name: value[start : start + step] for name, value in inputs.items()}).logits.float()
        for start in range(0, len(owners), step)
    ]
    return SequenceClassifierOutput(logits=mean_of_each(torch.cat(parts), owners))  # type: ignore[arg-type]


def mean_of_each(logits: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """The mean of the rows that belong together.

    Args:
        logits: (windows, C).
        owners: (windows,) from 0 to N - 1, each number at least once.

    Returns:
        (N, C).
    """
    counts = torch.bincount(owners)
    sums = logits.new_zeros(len(counts), logits.shape[1]).index_add(0, owners, logits)
    return sums / counts.unsqueeze(1)
