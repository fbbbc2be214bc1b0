"""What each metric measures, written once for the test set and for its bootstrap resamples.

A measure takes logits and labels and returns a `Statistic`: a function of `counts`, float array (N, B), where
`counts[n, b]` says how often sample n occurs in resample b. It returns the metric's value in each resample, shape (B,).
The value on the test set itself is the statistic of a column of ones; an interval is the same statistic on resampled
counts. So a metric and its interval cannot drift apart, and no metric is evaluated sample by sample.

A value that does not exist (R2 of a constant target, F1 without any class) is NaN, never 0, and never a numpy warning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.outputs import confidence, log_normalizer

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Statistic = Callable[[np.ndarray], np.ndarray]
Measure = Callable[[np.ndarray, np.ndarray], Statistic]

ECE_BINS = 15


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is zero."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _mean_over_classes(values: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of (C, B) values, of the classes that exist in each resample; NaN where none does."""
    return _divide(np.where(exists, values, 0.0).sum(axis=0), exists.sum(axis=0).astype(float))


def _mean_of(values: np.ndarray) -> Statistic:
    """Mean of a value per sample (N,)."""
    values = values.astype(float)
    return lambda counts: values @ counts / counts.sum(axis=0)


# --- single label: logits (N, C), labels (N,) ------------------------------------------------------------------------


def accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of samples whose largest logit is the label's."""
    return _mean_of(logits.argmax(axis=1) == labels)


def top5_accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of samples whose label is among the five largest logits; ties as in sklearn."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ahead = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) > labels[:, None]))
    return _mean_of(ahead.sum(axis=1) < 5)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean negative log probability of the label, in nats; from the logits, so never clipped."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return _mean_of(log_normalizer(logits) - own.astype(float))


def ece(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Expected calibration error, 15 bins of equal width (lower, upper] (Guo et al. 2017, arXiv:1706.04599)."""
    from scipy.sparse import csr_array

    sure = confidence(logits)
    gap = (logits.argmax(axis=1) == labels) - sure
    bins = np.clip(np.ceil(sure * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = csr_array((gap, (bins, np.arange(len(bins)))), shape=(ECE_BINS, len(bins)))
    return lambda counts: np.abs(gaps @ counts).sum(axis=0) / counts.sum(axis=0)


def _memberships(logits: np.ndarray, labels: np.ndarray) -> tuple[csr_array, csr_array]:
    """True and predicted classes as sparse (C, N) matrices of ones."""
    from scipy.sparse import csr_array

    rows = np.arange(len(labels))
    shape = (logits.shape[1], len(labels))
    ones = np.ones(len(labels))
    return csr_array((ones, (labels, rows)), shape=shape), csr_array((ones, (logits.argmax(axis=1), rows)), shape=shape)


def balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean over the classes that occur of the share of their samples found."""
    true, predicted = _memberships(logits, labels)
    hits = true.multiply(predicted).tocsr()

    def statistic(counts: np.ndarray) -> np.ndarray:
        support = true @ counts
        return _mean_over_classes(_divide(hits @ counts, support), support > 0)

    return statistic


# --- F1 of either kind of classes ------------------------------------------------------------------------------------


def _f1(true: csr_array, predicted: csr_array, *, macro: bool) -> Statistic:
    hits = true.multiply(predicted).tocsr()

    def statistic(counts: np.ndarray) -> np.ndarray:
        both, either = hits @ counts, true @ counts + predicted @ counts
        if macro:  # a class neither labelled nor predicted has no F1: sklearn's zero_division=nan
            return _mean_over_classes(_divide(2 * both, either), either > 0)
        return _divide(2 * both.sum(axis=0), either.sum(axis=0))

    return statistic


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean F1 over the classes that are labelled or predicted at least once."""
    return _f1(*_memberships(logits, labels), macro=True)


def micro_f1(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """F1 of all decisions together; for single labels it equals accuracy."""
    return _f1(*_memberships(logits, labels), macro=False)


# --- multi-label: logits (N, C), labels (N, C) of 0 and 1 ------------------------------------------------------------


def _decisions(logits: np.ndarray, labels: np.ndarray) -> tuple[csr_array, csr_array]:
    from scipy.sparse import csr_array

    return csr_array((labels > 0.5).T.astype(float)), csr_array((logits > 0).T.astype(float))


def multi_macro_f1(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean F1 over the classes that are labelled or predicted at least once; a class is predicted above 0.5."""
    return _f1(*_decisions(logits, labels), macro=True)


def multi_micro_f1(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """F1 of all (sample, class) decisions together."""
    return _f1(*_decisions(logits, labels), macro=False)


def subset_accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of samples whose whole set of labels is right."""
    return _mean_of(((logits > 0) == (labels > 0.5)).all(axis=1))


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean average precision (sklearn's step-wise definition) over the classes that occur in the labels."""
    classes = [_average_precision(logits[:, c], labels[:, c] > 0.5) for c in range(logits.shape[1])]

    def statistic(counts: np.ndarray) -> np.ndarray:
        values = np.stack([one(counts) for one in classes])
        return _mean_over_classes(values, ~np.isnan(values))

    return statistic


def _average_precision(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """Precision matters only at the scores of positives, so samples are summed between those: P groups, not N."""
    from scipy.sparse import csr_array

    if not positive.any():
        return lambda counts: np.full(counts.shape[1], np.nan)
    thresholds = -np.unique(-scores[positive])  # descending, equal scores once
    group = np.searchsorted(-thresholds, -scores)  # the first threshold that lets the sample in
    inside = np.flatnonzero(group < len(thresholds))
    found = np.flatnonzero(positive)

    def sums(rows: np.ndarray) -> np.ndarray:
        return csr_array((np.ones(len(rows)), (group[rows], rows)), shape=(len(thresholds), len(scores)))

    let_in, hits = sums(inside), sums(found)

    def statistic(counts: np.ndarray) -> np.ndarray:
        new_hits = hits @ counts
        precision = _divide(np.cumsum(new_hits, axis=0), np.cumsum(let_in @ counts, axis=0))
        total = new_hits.sum(axis=0)
        return _divide((np.where(new_hits > 0, precision, 0.0) * new_hits).sum(axis=0), total)

    return statistic


# --- regression: logits (N, T), labels (N, T); the mean over targets -------------------------------------------------


def mse(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean squared error, in squared units of the target."""
    return _mean_of(((logits - labels) ** 2).mean(axis=1))


def mae(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean absolute error, in units of the target."""
    return _mean_of(np.abs(logits - labels).mean(axis=1))


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
        return 1 - _divide(errors @ counts, _spread(y**2 @ counts, y @ counts, n))

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
    return np.clip(_divide(together, np.sqrt(spread_a) * np.sqrt(spread_b)), -1.0, 1.0)


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
