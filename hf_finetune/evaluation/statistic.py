"""What every measure is: a statistic of how often each sample occurs, the same for a test set and its resamples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
Measure = Callable[[np.ndarray, np.ndarray], Statistic]


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is zero."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def mean_over_classes(values: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of (C, B) values, of the classes that exist in each resample; NaN where none does."""
    return divide(np.where(exists, values, 0.0).sum(axis=0), exists.sum(axis=0).astype(float))


def mean_of(values: np.ndarray) -> Statistic:
    """Mean of a value per sample (N,)."""
    values = values.astype(float)
    return lambda counts: values @ counts / counts.sum(axis=0)
