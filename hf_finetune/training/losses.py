"""What is minimised: one loss for each problem type, the same for every architecture.

The models' own losses differ in how they scale with gradient accumulation and processes (transformers issue 47688), so
the Trainer computes the loss from the logits alone: a plain mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from hf_finetune.recipes.schema import ProblemType

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def loss_function(problem_type: ProblemType, label_smoothing: float = 0.0) -> Loss:
    """The loss of logits (N, C) and labels, averaged over the batch.

    Args:
        problem_type: `single_label_classification` (labels (N,) of class ids), `multi_label_classification` (labels
            (N, C) of zeros and ones) or `regression` (labels (N,) or (N, T)).
        label_smoothing: share of the target spread evenly over the classes (Szegedy et al. 2016, arXiv:1512.00567);
            single-label classification only.
    """
    if problem_type == "single_label_classification":
        return partial(_cross_entropy, label_smoothing=label_smoothing)
    return _multi_label if problem_type == "multi_label_classification" else _squared_error


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), labels.long(), label_smoothing=label_smoothing)


def _multi_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())


def _squared_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # Without the reshape (N, 1) against (N,) would broadcast to (N, N).
    return functional.mse_loss(logits.float(), labels.float().reshape(logits.shape))
