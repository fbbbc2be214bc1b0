"""What is minimised: from the `loss:` section to one function of logits and labels, the same for every architecture.

The models' own losses differ in how they scale with gradient accumulation and processes (transformers issue 47688), so
the Trainer computes the loss from the logits alone: a plain mean over the batch.

Validation reports the plain loss of the problem type (`loss_function`: cross-entropy, BCE, MSE) whatever is minimised,
without weights, smoothing and adjustment, so that recipes compare; timm's validation does so too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from hf_finetune.errors import UserError
from hf_finetune.recipes.pairs_loss import LOSSES
from hf_finetune.recipes.schema import Loss as LossSettings
from hf_finetune.recipes.schema import ProblemType
from hf_finetune.training.loss_terms import (
    Table,
    coral_table,
    cross_entropy_table,
    expected,
    focal_table,
    one_against_rest_table,
)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_CELLS = 2**24  # logits whose loss is computed at once


def loss_function(problem_type: ProblemType, label_smoothing: float = 0.0) -> Loss:
    """The plain loss of logits (N, C) and labels, averaged over the batch.

    Args:
        problem_type: `single_label_classification` (labels (N,) of class ids, or (N, C) of shares),
            `multi_label_classification` (labels (N, C) of zeros and ones) or `regression` (labels (N,) or (N, T)).
        label_smoothing: share of the target spread evenly over the classes (Szegedy et al. 2016, arXiv:1512.00567);
            single-label classification only.
    """
    if problem_type == "single_label_classification":
        return partial(_cross_entropy, label_smoothing=label_smoothing)
    return _multi_label if problem_type == "multi_label_classification" else _squared_error


def mean_loss(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """A plain loss of all rows, logits (N, C), with copies of a part of them at a time.

    Up to some 16 million numbers they are one part, and the mean is torch's own to the last bit.
    """
    rows = max(1, _CELLS // max(1, logits[:1].numel()))
    if len(logits) <= rows:
        return loss(logits, labels).item()
    parts = zip(logits.split(rows), labels.split(rows), strict=True)
    return sum(loss(some, theirs).item() * len(some) for some, theirs in parts) / len(logits)


def training_loss(
    settings: LossSettings,
    problem_type: ProblemType,
    label_smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
    class_shares: torch.Tensor | None = None,
) -> Loss:
    """The loss that training minimises, of logits (N, C) and labels as in `loss_function`.

    Args:
        settings: kind, gamma, delta, logit_adjustment.
        problem_type: of the labels.
        label_smoothing: as in `loss_function`.
        weights: (C,) of the classes, see `class_weights.py`; None for none.
        class_shares: (C,) share of each class in the training rows, for logit adjustment.

    Raises:
        UserError: the kind, or a setting beside it, does not fit the problem type.
    """
    kind = _kind(settings, problem_type, label_smoothing)
    if problem_type == "regression":
        of_numbers: dict[str, Loss] = {
            "mse": _squared_error,
            "mae": _absolute_error,
            "huber": partial(_huber, delta=settings.delta),
        }
        return of_numbers[kind]
    if problem_type == "multi_label_classification":
        return partial(_multi_label_term, gamma=settings.gamma if kind == "focal" else 0.0, weights=weights)
    shift = None
    if settings.logit_adjustment and class_shares is not None:
        shift = settings.logit_adjustment * class_shares.log()
    if kind == "cross_entropy" and weights is None and shift is None:
        return loss_function(problem_type, label_smoothing)
    tables: dict[str, Table] = {
        "cross_entropy": cross_entropy_table,
        "focal": partial(focal_table, gamma=settings.gamma),
        "bce": one_against_rest_table,
        "coral": coral_table,
    }
    return partial(_one_class, table=tables[kind], smoothing=label_smoothing, weights=weights, shift=shift)


def _kind(settings: LossSettings, problem_type: ProblemType, label_smoothing: float) -> str:
    """The loss's kind with `auto` resolved; what the recipe alone could not know is refused here."""
    allowed = LOSSES[problem_type]
    problem = problem_type.replace("_", " ")
    if settings.kind != "auto" and settings.kind not in allowed:
        raise UserError(f"loss.kind={settings.kind}: the data is {problem}, which takes auto, {', '.join(allowed)}.")
    if problem_type != "single_label_classification":
        one_class = {
            "loss.logit_adjustment": settings.logit_adjustment,
            "loss.sampling=balanced": settings.sampling == "balanced",
            "loss.class_weights=balanced": settings.class_weights == "balanced",
            "loss.class_weights": settings.class_weights is not None and problem_type == "regression",
            "training.label_smoothing_factor": label_smoothing,
        }
        for name, given in one_class.items():
            if given:
                raise UserError(f"{name} does not fit the data, which is {problem}: remove it.")
    return allowed[0] if settings.kind == "auto" else settings.kind


def _one_class(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    table: Table,
    smoothing: float,
    weights: torch.Tensor | None,
    shift: torch.Tensor | None,
) -> torch.Tensor:
    logits = logits.float()
    if shift is not None:
        logits = logits + shift.to(logits)
    return expected(table(logits), labels, smoothing, weights)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    soft = labels.ndim == 2
    return functional.cross_entropy(
        logits.float(), labels.float() if soft else labels.long(), label_smoothing=label_smoothing
    )


def _multi_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())


def _multi_label_term(
    logits: torch.Tensor, labels: torch.Tensor, *, gamma: float, weights: torch.Tensor | None
) -> torch.Tensor:
    """Binary cross-entropy of each label, focal for gamma > 0, with the labels' weights (mean 1)."""
    from torchvision.ops import sigmoid_focal_loss

    terms = sigmoid_focal_loss(logits.float(), labels.float(), alpha=-1, gamma=gamma)
    return (terms if weights is None else terms * weights.to(terms)).mean()


def _squared_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # Without the reshape (N, 1) against (N,) would broadcast to (N, N).
    return functional.mse_loss(logits.float(), labels.float().reshape(logits.shape))


def _absolute_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.l1_loss(logits.float(), labels.float().reshape(logits.shape))


def _huber(logits: torch.Tensor, labels: torch.Tensor, delta: float) -> torch.Tensor:
    """Huber 1964: x^2 / 2 up to delta, delta x (|x| - delta / 2) beyond; x in standard deviations of the targets."""
    return functional.huber_loss(logits.float(), labels.float().reshape(logits.shape), delta=delta)
