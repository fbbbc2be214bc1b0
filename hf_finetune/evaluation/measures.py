"""What each metric of classes measures, written once for the test set and for its bootstrap resamples.

A measure takes logits and labels and returns a `Statistic`: a function of `counts`, float array (N, B), where
`counts[n, b]` says how often sample n occurs in resample b. It returns the metric's value in each resample, shape (B,).
The value on the test set itself is the statistic of a column of ones; an interval is the same statistic on resampled
counts. So a metric and its interval cannot drift apart, and no metric is evaluated sample by sample.

A value that does not exist (R2 of a constant target, F1 without any class) is NaN, never 0, and never a numpy warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.evaluation.statistic import Statistic, divide, mean_of, mean_over_classes
from hf_finetune.outputs import log_normalizer, parts_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array


# --- single label: logits (N, C), labels (N,) ------------------------------------------------------------------------


def accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of samples whose largest logit is the label's."""
    return mean_of(logits.argmax(axis=1) == labels)


def top5_accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of samples whose label is among the five largest logits; ties as in sklearn."""
    found = np.empty(len(labels), dtype=bool)
    for part in parts_of(logits):
        rows, label = logits[part], labels[part, None]
        own = np.take_along_axis(rows, label, axis=1)
        ahead = (rows > own) | ((rows == own) & (np.arange(rows.shape[1]) > label))
        found[part] = ahead.sum(axis=1) < 5
    return mean_of(found)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean negative log probability of the label, in nats; from the logits, so never clipped."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return mean_of(log_normalizer(logits) - own.astype(float))


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
        return mean_over_classes(divide(hits @ counts, support), support > 0)

    return statistic


# --- F1 of either kind of classes ------------------------------------------------------------------------------------


def _f1(true: csr_array, predicted: csr_array, *, macro: bool) -> Statistic:
    hits = true.multiply(predicted).tocsr()

    def statistic(counts: np.ndarray) -> np.ndarray:
        both, either = hits @ counts, true @ counts + predicted @ counts
        if macro:  # a class neither labelled nor predicted has no F1: sklearn's zero_division=nan
            return mean_over_classes(divide(2 * both, either), either > 0)
        return divide(2 * both.sum(axis=0), either.sum(axis=0))

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

    return csr_array((labels > 0.5).T).astype(float), csr_array((logits > 0).T).astype(float)


def multi_macro_f1(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean F1 over the classes that are labelled or predicted at least once; a class is predicted above 0.5."""
    return _f1(*_decisions(logits, labels), macro=True)


def multi_micro_f1(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """F1 of all (sample, class) decisions together."""
    return _f1(*_decisions(logits, labels), macro=False)


def subset_accuracy(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of samples whose whole set of labels is right."""
    return mean_of(((logits > 0) == (labels > 0.5)).all(axis=1))


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean average precision (sklearn's step-wise definition) over the classes that occur in the labels."""
    classes = [_average_precision(logits[:, c], labels[:, c] > 0.5) for c in range(logits.shape[1])]

    def statistic(counts: np.ndarray) -> np.ndarray:
        values = np.stack([one(counts) for one in classes])
        return mean_over_classes(values, ~np.isnan(values))

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
        precision = divide(np.cumsum(new_hits, axis=0), np.cumsum(let_in @ counts, axis=0))
        total = new_hits.sum(axis=0)
        return divide((np.where(new_hits > 0, precision, 0.0) * new_hits).sum(axis=0), total)

    return statistic
