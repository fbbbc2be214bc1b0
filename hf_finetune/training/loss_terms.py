"""Losses of one class a row, each as a table: what the loss would be if the label were class c.

A table makes everything else linear and the same for every loss: the loss of a row is its table's entry at the label;
soft labels (mixup, CutMix) take the expectation, which is mixup's own lambda x loss(a) + (1 - lambda) x loss(b)
(arXiv:1710.09412); label smoothing mixes an entry with the mean of its row; class weights multiply columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

Table = Callable[[torch.Tensor], torch.Tensor]


def cross_entropy_table(logits: torch.Tensor) -> torch.Tensor:
    """-log softmax: logits (N, C) -> (N, C)."""
    return -functional.log_softmax(logits, dim=-1)


def focal_table(logits: torch.Tensor, gamma: float) -> torch.Tensor:
    """(1 - p)^gamma x -log p, with p of the softmax (Lin et al. 2017, arXiv:1708.02002): logits (N, C) -> (N, C)."""
    surprise = cross_entropy_table(logits)
    # 1 - p without cancellation; the power's slope at 0 is infinite for gamma < 1.
    doubt = -torch.expm1(-surprise)
    return doubt.clamp(min=1e-7) ** gamma * surprise


def one_against_rest_table(logits: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of C sigmoids against a one-hot target: logits (N, C) -> (N, C).

    As a multi-class loss: "ResNet strikes back" (arXiv:2110.00476).
    """
    return (functional.softplus(logits).sum(-1, keepdim=True) - logits) / logits.shape[-1]


def coral_table(logits: torch.Tensor) -> torch.Tensor:
    """Sum of the C - 1 binary cross-entropies of "above class k": logits (N, C) -> (N, C).

    The logit of "above class k" is the difference of neighbours, logits[k + 1] - logits[k]; see `coral.py`, which
    gives these the form that the paper wants.
    """
    above = logits.diff(dim=-1)
    # sum over k of softplus(above_k) - [c > k] above_k, where the second part telescopes.
    return functional.softplus(above).sum(-1, keepdim=True) - (logits - logits[:, :1])


def expected(
    table: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean loss of a batch from its table.

    Args:
        table: (N, C), see above.
        labels: (N,) class ids, or (N, C) shares that add up to 1.
        smoothing: share of each label that is spread evenly over the classes (arXiv:1512.00567).
        weights: (C,) of the classes, with a mean of 1 over the training rows. The mean is over N, not over the weights
            of this batch, so that accumulated batches and several processes give what one large batch gives.
    """
    if smoothing:
        table = (1.0 - smoothing) * table + smoothing * table.mean(dim=-1, keepdim=True)
    if weights is not None:
        table = table * weights.to(table)
    if labels.ndim == 1:
        return table.gather(1, labels.long().unsqueeze(1)).mean()
    return (table * labels.to(table)).sum(-1).mean()
