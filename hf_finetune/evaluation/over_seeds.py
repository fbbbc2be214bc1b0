"""A score over seeds and test samples: its mean, and a 95% interval in which both kinds of chance are.

A model that is trained again with another seed scores differently, and so would the same models on other test samples.
The two are crossed: every seed answers the same samples. The variance of the mean of S seeds is estimated as

    V = V_rows + s^2 / S

with V_rows the variance of that mean over bootstrap resamples of the rows (the same resample for every seed), and s the
standard deviation of the seeds' scores. What depends on seed and sample together is in both terms, which makes the
interval slightly wide rather than narrow (Owen 2007, "The pigeonhole bootstrap", doi:10.1214/07-AOAS122, has the same
for crossed factors). Two to five seeds are few, so the interval is mean +- t * sqrt(V) with Student's t and the degrees
of freedom of Satterthwaite (1946, doi:10.2307/3002019): S - 1 where seeds are the larger part, nearly infinite where
rows are. A bootstrap over so few seeds would be far too narrow: two of them give three different resamples.

Near 0 and 1 a bootstrap of few rows sees next to nothing: seeds that are all right on 60 rows would have the interval
[1, 1]. So a share of the samples, such as accuracy, has Wilson's interval for so many samples as V tells of,
p (1 - p) / V (the effective sample size of surveys: Kott and Carr 1997, J. Off. Stat. 13; Franco et al. 2019,
PMC6690503). And the difference of two shares, of one seed each or where all answers are alike, has two rows added to
those that were answered, as Agresti and Min (2005, Stat. Med. 24, 729) have it: a half of one on which the first alone
is right, a half for the second, one for both alike. With several seeds that would cost power and is not needed: what
depends on seed and row together is in the variance twice.

In simulations of right and wrong answers (2 and 5 seeds, 60 to 1,000 samples, shares of 0.8 to 0.998) it held the true
score in 93 to 99% wherever seeds are the smaller part, where a plain interval fell to 19% near 1; and in 86 to 93% with
two to five seeds that differ much more than chance of the samples explains: no method knows a spread from two values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_finetune.evaluation.intervals import resample_counts, wilson
from hf_finetune.evaluation.statistic import Statistic

_COVERED = 0.95
# Rows that are added to those of a difference of shares: what each tells (first right less second), and its weight.
_ADDED = ((1.0, 0.5), (-1.0, 0.5), (0.0, 1.0))


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and how sure it is.

    Args:
        mean: of the seeds' values.
        std: of them, with S - 1; None of one seed.
        variance: of the mean, over seeds and rows; None where it is unknown.
        freedom: degrees of freedom of the variance.
        middle: of the interval; the mean, but for the rows that are added to a difference of shares.
        share_of: samples of which the values are shares; None of other metrics.
    """

    mean: float
    std: float | None
    variance: float | None
    freedom: float
    middle: float
    share_of: int | None = None

    def interval(self, lowest: float = -math.inf, greatest: float = math.inf) -> list[float] | None:
        """The 95% interval, within what the metric can be; None where the variance is unknown."""
        if self.variance is None:
            return None
        from scipy.stats import t

        errors = float(t.ppf((1 + _COVERED) / 2, self.freedom))
        if self.share_of is not None:
            alone = self.mean * (1 - self.mean)  # variance of one sample
            return wilson(self.mean, alone / self.variance if alone and self.variance else self.share_of, errors)
        half = errors * math.sqrt(self.variance) if self.variance else 0.0
        return [max(lowest, self.middle - half), min(greatest, self.middle + half)]

    def chance(self) -> float | None:
        """How often a mean as far from 0 would come about if 0 were true: the two-sided p of a t test."""
        if self.variance is None:
            return None
        if self.variance == 0.0:
            return 1.0 if self.middle == 0.0 else 0.0
        from scipy.stats import t

        return float(2 * t.sf(abs(self.middle) / math.sqrt(self.variance), self.freedom))


def resampled(statistics: Sequence[Statistic], samples: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Values (S, B) of S runs on B bootstrap resamples of the rows, the same resample for all of them.

    Args:
        statistics: of each run, see `metrics.statistics_of`; of the same rows in the same order.
        samples: rows.
        resamples: B.
        seed: of the resamples.
    """
    parts = [np.stack([one(counts) for one in statistics]) for counts in resample_counts(samples, resamples, seed)]
    return np.concatenate(parts, axis=1) if parts else np.empty((len(statistics), 0))


def spread(
    values: Sequence[float],
    rows: np.ndarray | None,
    samples: int,
    *,
    of_rows: float | None = None,
    share: bool = False,
    gap: bool = False,
) -> Spread:
    """The mean of the seeds' values with its variance over seeds and rows.

    Args:
        values: (S,) one a seed, on all rows.
        rows: (S, B) from `resampled`; None where there are none.
        samples: rows that there are.
        of_rows: the variance of the mean over rows, where it is known without `rows`; without both it is left out.
        share: the values are shares of the samples.
        gap: they are differences of two such shares, to which rows are added.
    """
    given = np.asarray(values, dtype=float)
    seeds, mean = len(given), float(np.mean(given))
    middle, std = mean, float(given.std(ddof=1)) if seeds > 1 else None
    of_seeds = None if std is None else std**2 / seeds
    if rows is not None and rows.size:
        of_rows = _variance_of_mean(rows)
    if of_rows is not None and gap:
        middle, of_rows = _with_added_rows(mean, of_rows, samples)
    freedom, variance = float(max(samples - 1, 1)), of_rows
    if of_rows is None:
        freedom, variance = float(max(seeds - 1, 1)), of_seeds
    elif of_seeds is not None:
        variance = of_rows + of_seeds
        weights = of_seeds**2 / (seeds - 1) + of_rows**2 / freedom
        freedom = variance**2 / weights if weights else freedom
    return Spread(mean, std, variance, freedom, middle, samples if share and samples else None)


def _with_added_rows(mean: float, variance: float, samples: int) -> tuple[float, float]:
    """Mean and variance of a mean over rows, after rows that were not answered have joined them."""
    count = samples + sum(weight for _, weight in _ADDED)
    middle = mean * samples / count  # what is added is 0 on average
    squares = variance * samples**2 + samples * (mean - middle) ** 2
    squares += sum(weight * (value - middle) ** 2 for value, weight in _ADDED)
    return middle, squares / count**2


def _variance_of_mean(rows: np.ndarray) -> float | None:
    """Over the resamples in which every seed has a value; None where these are too few to tell."""
    means = rows.mean(axis=0)
    found = means[np.isfinite(means)]
    return float(found.var()) if len(found) >= _COVERED * len(means) else None
