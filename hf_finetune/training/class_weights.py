"""How often each class occurs, and what a class weighs.

Weights are scaled to a mean of 1 over the training rows. Over the whole training split the loss is then
sum(w l) / sum(w), which is the plain loss of a split in which a class's rows are repeated w times. The scale is that of
the split, not of a batch: a batch's own mean weight would cancel the weights of a batch of one class, and would make
accumulated batches differ from a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace

Given = str | Sequence[float] | dict[str, float] | None


def class_counts(labels: Any, num_labels: int) -> np.ndarray:
    """Training rows of each class, (C,); labels (N,) of class ids, or (N, C) of zeros and ones."""
    array = np.asarray(labels)
    return array.sum(axis=0) if array.ndim == 2 else np.bincount(array.astype(np.int64), minlength=num_labels)


def class_shares(counts: np.ndarray) -> torch.Tensor:
    """Share of each class, (C,); a class without rows counts as half a row, so that its logarithm is finite."""
    at_least = np.maximum(counts, 0.5)
    return torch.as_tensor(at_least / at_least.sum(), dtype=torch.float32)


def class_weights(given: Given, labels: LabelSpace, counts: np.ndarray) -> torch.Tensor | None:
    """`loss.class_weights` as (C,) in the order of the model's outputs, scaled as said above; None for none.

    For multi-label problems, where every row counts for every label, the weights' own mean is 1.

    Raises:
        UserError: a name that is no class, or a list of another length.
    """
    if given is None:
        return None
    one_class = labels.problem_type == "single_label_classification"
    if isinstance(given, str):
        present = counts > 0
        weights = np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 1.0)
    else:
        weights = np.asarray(_in_order(given, labels), dtype=np.float64)
    mean = (weights * counts).sum() / counts.sum() if one_class else weights.mean()
    return torch.as_tensor(weights / mean, dtype=torch.float32)


def _in_order(given: Sequence[float] | dict[str, float], labels: LabelSpace) -> list[float]:
    names = ", ".join(labels.names[:20]) + (", ..." if len(labels.names) > 20 else "")
    if isinstance(given, dict):
        unknown = [name for name in given if name not in labels.names]
        if unknown:
            raise UserError(f"loss.class_weights names {', '.join(unknown)}, and the classes are {names}.")
        return [given.get(name, 1.0) for name in labels.names]
    if len(given) != labels.num_labels:
        raise UserError(
            f"loss.class_weights lists {len(given)} weights, and there are {labels.num_labels} classes: {names}."
        )
    return list(given)
