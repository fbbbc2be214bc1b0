"""From logits to probabilities and predictions, the same way transformers' pipelines do it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_CELLS = 2**20  # numbers handled at once, so that float64 copies stay small beside the logits


def parts_of(values: np.ndarray, cells: int = _CELLS) -> Iterator[slice]:
    """Rows of values (N, ...) to be handled at once, one run of neighbours after the other."""
    rows = max(1, cells // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        yield slice(start, start + rows)


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(np.isfinite(values[rows]).all()) for rows in parts_of(values))


def log_normalizer(logits: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials of each row of logits (N, C), float64 (N,)."""
    out = np.empty(len(logits))
    for part in parts_of(logits):
        rows = logits[part].astype(np.float64)
        top = rows.max(axis=1)
        out[part] = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
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
    found = np.empty(logits.shape, dtype=np.float32)
    for part in parts_of(logits):
        rows = logits[part]
        if problem_type == "single_label_classification":
            found[part] = np.exp(rows - log_normalizer(rows)[:, None])
        else:
            small = np.exp(-np.abs(rows.astype(np.float64)))  # of either sign without overflow
            found[part] = np.where(rows >= 0, 1 / (1 + small), small / (1 + small))
    return found


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
