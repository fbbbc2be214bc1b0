"""LogME: how well a linear model on fixed features explains the labels, in one number and without training."""

from __future__ import annotations

import numpy as np

_STEPS = 100
_STILL = 1e-4  # relative change of alpha / beta at which the fixed point is reached
_TINY = 1e-10


def log_evidence(features: np.ndarray, targets: np.ndarray) -> float:
    """The logarithm of the maximum evidence of a Bayesian linear model, per row and mean over the targets.

    You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", arXiv:2102.11005: labels
    are a linear function of the features with Gaussian weights (precision alpha) and Gaussian noise (precision beta);
    both are found by MacKay's fixed point. One singular value decomposition of the features serves every step and every
    target (You et al. 2022, arXiv:2110.10545, algorithm 2). More is better; of features that say nothing it is that of
    the targets' own variance.

    Args:
        features: float (N, D).
        targets: (N,) class numbers as integers, each class then being a target of zeros and ones; or numbers, (N,) or
            (N, K) float.

    Raises:
        ValueError: there are no rows.
    """
    if not len(features):
        raise ValueError("LogME needs at least one row")
    left, values, _ = np.linalg.svd(np.asarray(features, dtype=np.float64), full_matrices=False)
    squares = values**2
    columns = columns_of(targets)
    return float(np.mean([_evidence(left, squares, column, features.shape[1]) for column in columns.T]))


def columns_of(targets: np.ndarray) -> np.ndarray:
    """Targets as float64 columns (N, K): of class numbers one column of zeros and ones for each class that occurs."""
    if is_of_classes(targets):
        return (targets[:, None] == np.unique(targets)[None, :]).astype(np.float64)
    return np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)


def is_of_classes(targets: np.ndarray) -> bool:
    """Whether targets are class numbers."""
    return targets.ndim == 1 and bool(np.issubdtype(targets.dtype, np.integer))


def _evidence(left: np.ndarray, squares: np.ndarray, target: np.ndarray, width: int) -> float:
    """Of one target, per row.

    Args:
        left: left singular vectors (N, R).
        squares: squared singular values (R,).
        target: (N,).
        width: of the features, D; D - R of their directions have no singular value.
    """
    rows = len(target)
    inside = (left.T @ target) ** 2
    outside = max(float(target @ target - inside.sum()), 0.0)  # what no linear function of the features explains
    ratio, evidence = 1.0, -np.inf
    for _ in range(_STEPS):
        known = float((squares / (squares + ratio)).sum())  # directions that the data decides
        weights = float((squares * inside / (squares + ratio) ** 2).sum())
        misses = float((inside / (1 + squares / ratio) ** 2).sum()) + outside
        alpha, beta = known / (weights + _TINY), max(rows - known, _TINY) / (misses + _TINY)
        log_determinant = float(np.log(alpha + beta * squares).sum()) + (width - len(squares)) * np.log(alpha + _TINY)
        evidence = 0.5 * (
            width * np.log(alpha + _TINY)
            + rows * np.log(beta)
            - log_determinant
            - beta * misses
            - alpha * weights
            - rows * np.log(2 * np.pi)
        )
        before, ratio = ratio, max(alpha / beta, _TINY)
        if abs(ratio - before) <= _STILL * before:
            break
    return evidence / rows
