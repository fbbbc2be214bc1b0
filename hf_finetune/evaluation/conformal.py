"""Prediction sets that hold the right class with a chosen chance: split conformal prediction.

The least ambiguous set-valued classifiers of Sadinle, Lei and Wasserman 2019 (arXiv:1609.00451): a class is in the set
when its probability is at least a bound. The bound is the ceil((n + 1) x coverage)-th of the n validation rows, ordered
by how unlikely their right class was (Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2021, arXiv:2107.07511).
For rows like those of validation the right class is then in the set with a chance of at least the coverage, and at most
1 / (n + 1) more, whatever the model is worth.

Of all sets with this coverage these are the smallest on average, and no chance is in them. They promise nothing for
each class, nor for hard rows alone. Where the model is right more often than the coverage, some sets are empty.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation.intervals import interval_of_mean
from hf_finetune.outputs import Rule, nonconformity


def least_rows(coverage: float) -> int:
    """Validation rows without which every set would have to hold every class."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def check_rows(rows: int, coverage: float) -> None:
    """Raise a UserError where validation is too small for a coverage."""
    if rows < least_rows(coverage):
        raise UserError(
            f"evaluation.conformal={coverage:g} needs at least {least_rows(coverage):,} validation rows, and there are "
            f"{rows:,}: with fewer every set holds every class. Give data.validation a larger share, or less coverage."
        )


def conformal_quantile(likely: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """The bound on `nonconformity`: sets are of the classes that do not exceed it.

    Args:
        likely: (N, C) probabilities of validation rows.
        labels: (N,) class numbers.
        coverage: between 0 and 1.

    Raises:
        UserError: there are too few rows.
    """
    check_rows(len(labels), coverage)
    strange = np.take_along_axis(nonconformity(likely), labels[:, None].astype(np.int64), axis=1)[:, 0]
    place = min(len(strange), math.ceil((len(strange) + 1) * coverage - 1e-9))
    return float(np.sort(strange)[place - 1])


def set_scores(
    rule: Rule, likely: np.ndarray, labels: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """How often the sets hold the right class, and how many classes are in them, with their intervals.

    Args:
        rule: with a quantile.
        likely: (N, C) probabilities of test rows.
        labels: (N,) class numbers.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the resamples.

    Returns:
        `set_coverage`, `set_size`, `empty_sets` (a share), each with `_ci95`.
    """
    inside = rule.sets(likely)
    size = inside.sum(axis=1)
    covered = np.take_along_axis(inside, labels[:, None].astype(np.int64), axis=1)[:, 0]
    scores: dict[str, Any] = {}
    for name, values in (("set_coverage", covered), ("set_size", size), ("empty_sets", size == 0)):
        scores[name] = float(values.mean())
        if resamples:
            scores[f"{name}_ci95"] = interval_of_mean(values, resamples, seed)
    return scores
