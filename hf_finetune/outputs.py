"""From logits to probabilities and predictions, the same way transformers' pipelines do it."""

from __future__ import annotations

import numpy as np

_ROWS = 8192  # rows handled at once, so that float64 copies stay small beside the logits


def log_normalizer(logits: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials of each row of logits (N, C), float64 (N,)."""
    out = np.empty(len(logits))
    for start in range(0, len(logits), _ROWS):
        rows = logits[start : start + _ROWS].astype(np.float64)
        top = rows.max(axis=1)
        out[start : start + _ROWS] = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return out


def confidence(logits: np.ndarray) -> np.ndarray:
    """Probability of the likeliest class, (N,)."""
    return np.exp(logits.max(axis=1).astype(np.float64) - log_normalizer(logits))


def probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Softmax of the logits (N, C) for single labels, sigmoid for multi-label, the values themselves for regression.

    Returns:
        float32 (N, C).
    """
    if problem_type == "regression":
        return np.asarray(logits, dtype=np.float32)
    if problem_type == "single_label_classification":
        return np.exp(logits - log_normalizer(logits)[:, None]).astype(np.float32)
    small = np.exp(-np.abs(logits.astype(np.float64)))  # of either sign without overflow
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def predictions(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """The decision in each row.

    Returns:
        Single label: class index (N,) int. Multi-label: 0 or 1 for each class (N, C) int, 1 above a probability of
        0.5. Regression: the values (N,) for one target, else (N, T), float32.
    """
    if problem_type == "single_label_classification":
        return logits.argmax(axis=1)
    if problem_type == "multi_label_classification":
        return (logits > 0).astype(np.int64)
    values = np.asarray(logits, dtype=np.float32)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
