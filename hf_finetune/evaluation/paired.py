"""Whether one run is better than another, or only luckier: paired tests on the same test rows.

- One seed each, right or wrong answers: the exact test of McNemar (1947, doi:10.1007/BF02295996): of the rows on which
  the two differ, is each as often right as the other?
- One seed each, any other metric: the paired bootstrap (Efron & Tibshirani 1993, chapter 16): the same resamples for
  both, and how often the difference has the other sign.
- Several seeds each: a t test of the mean difference over seeds and rows (`over_seeds`), whose rows are the same paired
  resamples. It tells of the strategies, where the tests of one seed tell of two trained models.
- Where the rows' answers are not kept, as those of validation: for shares the t test with the rows of both as if they
  were others, which finds less, and nothing for other metrics.

Of many pairs some differ by chance: Holm (1979, jstor.org/stable/4615733) corrects for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_finetune.evaluation.over_seeds import spread

MCNEMAR, BOOTSTRAP, OVER_SEEDS = "McNemar, exact", "paired bootstrap", "t over seeds and rows"
UNPAIRED = "t over seeds, rows not paired"
_ENOUGH = 0.95  # share of resamples in which the metric must exist for both


@dataclass(frozen=True)
class Difference:
    """One run, or strategy, less another.

    Args:
        value: of the metric.
        ci95: of the value; None where it is unknown.
        p: how often chance alone makes such a difference; None where it is unknown.
        method: of the test.
    """

    value: float
    ci95: list[float] | None
    p: float | None
    method: str


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The two-sided p of McNemar's exact test.

    Args:
        first, second: (N,) whether each is right on a row.
    """
    from scipy.stats import binomtest

    alone, other = int((first & ~second).sum()), int((~first & second).sum())
    return float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0


def difference(
    first: Sequence[float],
    second: Sequence[float],
    first_rows: np.ndarray | None,
    second_rows: np.ndarray | None,
    samples: int,
    right: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    share: bool = False,
) -> Difference:
    """First less second, and how sure that is.

    Args:
        first, second: (S,) values of the metric, seed by seed the same seeds.
        first_rows, second_rows: (S, B) on the same resamples of the same rows; None where these are not the same rows.
        samples: rows.
        right: (N,) whether each is right on a row, where the metric is accuracy and there is one seed.
        share: the metric is a share of the rows.
    """
    values = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    value = float(values.mean())
    if first_rows is None or second_rows is None:
        if right is not None:
            return Difference(value, None, mcnemar(*right), MCNEMAR)
        if not (share and samples):  # the seeds alone would call real what a few rows have made
            return Difference(value, None, None, UNPAIRED)
        told = spread(values, None, samples, of_rows=_alone(first, samples) + _alone(second, samples))
        return Difference(value, told.interval(), told.chance(), UNPAIRED)
    rows = first_rows - second_rows
    few = len(values) == 1 or not rows.any()  # then the resamples tell too little of the chance of the rows
    told = spread(values, rows, samples, gap=share and few)
    if len(values) > 1:
        return Difference(value, told.interval(), told.chance(), OVER_SEEDS)
    found = rows[0][np.isfinite(rows[0])]
    if not found.size or len(found) < _ENOUGH * rows.shape[1]:
        return Difference(value, None, None if right is None else mcnemar(*right), MCNEMAR if right else BOOTSTRAP)
    low, high = (told.interval() if share else None) or np.percentile(found, [2.5, 97.5])
    if right is not None:
        return Difference(value, [float(low), float(high)], mcnemar(*right), MCNEMAR)
    other = 2 * min((found <= 0).mean(), (found >= 0).mean())
    least = 1 / (len(found) + 1)  # so many resamples know no smaller chance
    return Difference(value, [float(low), float(high)], float(min(1.0, max(other, least))), BOOTSTRAP)


def _alone(shares: Sequence[float], samples: int) -> float:
    """The variance of a share over its samples, with a right and a wrong one added (Agresti and Caffo 2000)."""
    share = (samples * float(np.mean(shares)) + 1) / (samples + 2)
    return share * (1 - share) / (samples + 2)


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """Holm's corrected p of each, in the order given; what is unknown stays so and is not counted.

    Each is the smallest error rate of the whole family at which its test would be significant.
    """
    known = sorted((p, place) for place, p in enumerate(chances) if p is not None)
    found: list[float | None] = [None] * len(chances)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        found[place] = largest
    return found
