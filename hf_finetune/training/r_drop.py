"""R-Drop (Liang et al. 2021, arXiv:2106.14448): two passes with different dropout shall agree."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from hf_finetune.recipes.schema import ProblemType

# Where attention and drop-path layers of transformers and timm keep a probability outside of an nn.Dropout.
_PROBABILITIES = ("drop_prob", "dropout_prob", "attention_dropout", "dropout", "dropout_p", "attn_dropout")


def divergence(one: torch.Tensor, other: torch.Tensor, problem_type: ProblemType) -> torch.Tensor:
    """Half of KL(one || other) + KL(other || one), averaged over the batch; logits (N, C) -> ().

    Of the softmax for classes; of each label's sigmoid, averaged over the labels, for several labels; of normal
    distributions of variance 1, half the squared difference, for numbers.
    """
    if problem_type == "regression":
        return 0.5 * functional.mse_loss(one, other)
    if problem_type == "multi_label_classification":
        # The symmetric divergence of two Bernoulli distributions is (p - q) x (logit p - logit q).
        return 0.5 * ((one.sigmoid() - other.sigmoid()) * (one - other)).mean()
    p, q = functional.log_softmax(one, dim=-1), functional.log_softmax(other, dim=-1)
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def draws_at_random(model: nn.Module) -> bool:
    """Whether two passes of a model in train mode can differ: some dropout or drop-path that is not held still."""
    mode = model.training
    model.train()
    try:
        return any(_probability(module) > 0 for module in model.modules() if module.training)
    finally:
        model.train(mode)


def _probability(module: nn.Module) -> float:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return float(module.p)
    values = [getattr(module, name, None) for name in _PROBABILITIES]
    return max((float(value) for value in values if isinstance(value, (int, float))), default=0.0)
