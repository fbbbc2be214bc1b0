"""What each metric of regression measures: logits (N, T), labels (N, T); the mean over targets. As `measures`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hf_finetune.evaluation.statistic import Measure, Statistic, divide, mean_of


def mse(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean squared error, in squared units of the target."""
    return mean_of(((logits - labels) ** 2).mean(axis=1))


def mae(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean absolute error, in units of the target."""
    return mean_of(np.abs(logits - labels).mean(axis=1))


def _centred(values: np.ndarray) -> np.ndarray:
    """Values less their mean, scaled to about one: sums of squares keep their digits, a constant is exactly zero."""
    if np.ptp(values) == 0:
        return np.zeros_like(values)
    values = values - values.mean()
    return values / np.abs(values).max()


def _spread(squares: np.ndarray, sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Sum of squared deviations; exactly zero where only rounding is left of it."""
    spread = squares - sums**2 / n
    return np.where(spread > 1e-12 * squares, spread, 0.0)


def _mean_over_targets(measure: Measure) -> Measure:
    """A measure of one target (N,) made one of (N, T)."""

    def of_all(logits: np.ndarray, labels: np.ndarray) -> Statistic:
        each = [measure(logits[:, t], labels[:, t]) for t in range(labels.shape[1])]
        return lambda counts: np.mean([one(counts) for one in each], axis=0)

    of_all.__doc__ = measure.__doc__
    return of_all


@_mean_over_targets
def r2(predicted: np.ndarray, target: np.ndarray) -> Statistic:
    """Coefficient of determination; NaN for a constant target."""
    scale = np.abs(target - target.mean()).max() or 1.0
    y, errors = _centred(target), ((target - predicted) / scale) ** 2

    def statistic(counts: np.ndarray) -> np.ndarray:
        n = counts.sum(axis=0)
        return 1 - divide(errors @ counts, _spread(y**2 @ counts, y @ counts, n))

    return statistic


@_mean_over_targets
def pearson(predicted: np.ndarray, target: np.ndarray) -> Statistic:
    """Linear correlation; NaN where target or prediction is constant."""
    p, y = _centred(predicted), _centred(target)
    return lambda counts: _correlation(p[:, None], y[:, None], counts)


def _correlation(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlation under counts (N, B) of values (N, 1) or (N, B), which should be centred nearly."""
    n = counts.sum(axis=0)
    sum_a, sum_b = (a * counts).sum(axis=0), (b * counts).sum(axis=0)
    spread_a = _spread((a * a * counts).sum(axis=0), sum_a, n)
    spread_b = _spread((b * b * counts).sum(axis=0), sum_b, n)
    together = (a * b * counts).sum(axis=0) - sum_a * sum_b / n
    return np.clip(divide(together, np.sqrt(spread_a) * np.sqrt(spread_b)), -1.0, 1.0)


@_mean_over_targets
def spearman(predicted: np.ndarray, target: np.ndarray) -> Statistic:
    """Correlation of ranks, equal values sharing their mean rank; ranked anew in every resample."""
    rank_p, rank_y = _ranker(predicted), _ranker(target)
    return lambda counts: _correlation(rank_p(counts), rank_y(counts), counts)


def _ranker(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Mean rank of each sample under counts: (N, B) -> (N, B), centred, in units of the number of samples."""
    from scipy.sparse import csr_array

    distinct, group = np.unique(values, return_inverse=True)
    sums = csr_array((np.ones(len(values)), (group, np.arange(len(values)))), shape=(len(distinct), len(values)))

    def ranks(counts: np.ndarray) -> np.ndarray:
        size = sums @ counts
        middle = np.cumsum(size, axis=0) - size / 2
        return (middle / counts.sum(axis=0) - 0.5)[group]

    return ranks
