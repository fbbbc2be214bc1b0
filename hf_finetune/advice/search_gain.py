"""How much better the winner of a search is than the recipe as it was given, and how sure that is.

Two answers, both by the bootstrap over validation rows. The paired one resamples the rows of both models alike; it
takes no account of the winner having been chosen on these very rows, among many, so that it flatters. The other one
chooses the winner anew in each resample and scores it on the rows that the resample has left out (bootstrap bias
corrected, BBC-CV: Tsamardinos et al. 2018, arXiv:1708.07180): what choosing is worth on rows that did not choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.evaluation.intervals import resample_counts
from hf_finetune.evaluation.measures import log_loss
from hf_finetune.evaluation.metrics import fit_shapes, statistics_of
from hf_finetune.evaluation.statistic import Statistic, mean_of

if TYPE_CHECKING:
    from hf_finetune.training.onlooker import Validated

_RESAMPLES = 1000
_ENOUGH = 0.95  # share of resamples in which both scores must exist


@dataclass(frozen=True)
class Gain:
    """Of the winner over the first trial; positive is better, whatever the metric's direction.

    Args:
        value: difference of the two validation scores.
        interval: 95%, paired bootstrap.
        unbiased: mean difference on rows that did not choose the winner; None where it cannot be had.
        unbiased_interval: its middle 95%.
        rows: of the validation split.
    """

    value: float
    interval: tuple[float, float]
    unbiased: float | None
    unbiased_interval: tuple[float, float] | None
    rows: int

    @property
    def sure(self) -> bool:
        """Whether the winner is better by more than chance: both answers say so."""
        return self.on_these_rows and self.unbiased_interval is not None and self.unbiased_interval[0] > 0

    @property
    def on_these_rows(self) -> bool:
        """Whether the paired interval says so, which knows nothing of the choosing."""
        return self.interval[0] > 0

    def written(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "sure": self.sure}


def gain_of(outcomes: Mapping[int, Validated], winner: int, shipped: int = 0, seed: int = 0) -> Gain | None:
    """Compare two trials on the validation rows, in the light of all.

    Args:
        outcomes: by trial; all of the same rows.
        winner: the best trial.
        shipped: the recipe as it was given.
        seed: of the resamples.

    Returns:
        None where no interval can be had: a metric without per-row form (several tasks, the loss of numbers), or other
        rows.
    """
    measured = {number: _statistic(outcome) for number, outcome in outcomes.items()}
    first = outcomes[shipped]
    same = all(np.array_equal(first.labels, other.labels) for other in outcomes.values())
    statistics = [each for each in measured.values() if each is not None]
    if not same or len(statistics) < len(measured):
        return None
    sign, rows = (1.0 if first.greater_is_better else -1.0), len(first.labels)
    place = {number: column for column, number in enumerate(measured)}
    paired: list[np.ndarray] = []
    left_out: list[np.ndarray] = []
    for counts in resample_counts(rows, _RESAMPLES, seed):
        inside = sign * np.stack([statistic(counts) for statistic in statistics])
        outside = sign * np.stack([statistic((counts == 0).astype(float)) for statistic in statistics])
        paired.append(inside[place[winner]] - inside[place[shipped]])
        columns = np.arange(counts.shape[1])
        chosen = np.argmax(np.where(np.isnan(inside), -np.inf, inside), axis=0)
        left_out.append(outside[chosen, columns] - outside[place[shipped]])
    interval, fair = _middle(np.concatenate(paired)), np.concatenate(left_out)
    if interval is None:
        return None
    unbiased = _middle(fair)
    value = sign * (outcomes[winner].score - first.score)
    return Gain(value, interval, None if unbiased is None else float(np.nanmean(fair)), unbiased, rows)


def _statistic(outcome: Validated) -> Statistic | None:
    """The score as a function of how often each row counts; None where there is no such form."""
    problem: Any = outcome.problem_type
    if not problem or outcome.metric.startswith("evaluate:"):
        return None
    if outcome.metric == "loss":
        return None if problem == "regression" else _loss(outcome)
    logits, labels = fit_shapes(outcome.logits, outcome.labels, problem)
    return statistics_of(logits, labels, problem, (outcome.metric,))[outcome.metric]


def _loss(outcome: Validated) -> Statistic:
    """Cross-entropy; of several labels the mean of theirs."""
    if outcome.problem_type != "multi_label_classification":
        return log_loss(outcome.logits, outcome.labels.astype(int))
    logits = outcome.logits.astype(float)
    each: np.ndarray = np.logaddexp(0.0, logits) - logits * outcome.labels
    return mean_of(each.mean(axis=1))


def _middle(values: np.ndarray) -> tuple[float, float] | None:
    found = values[~np.isnan(values)]
    if len(found) < _ENOUGH * len(values):
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
