"""From measurements to the score that each strategy is likely to reach: a small regression on benchmark results.

The numbers are in `assets/advice.json`; `benchmarks/advice.py fit` makes it from `benchmarks/results/advice.jsonl` and
says how far off it was on data sets that it had not seen.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ASSET = Path(__file__).resolve().parent.parent / "assets" / "advice.json"
LEVEL = 0.9  # of the intervals
FEATURES = ("probe", "size", "middle", "spread", "text")
_LOWEST, _HIGHEST = 0.02, 0.998  # accuracies as logits
_FARTHEST = 2.5  # standard deviations from what it was fitted to: beyond, nothing is known


@dataclass(frozen=True)
class Facts:
    """What a forecast is made from.

    Args:
        probe: accuracy of a linear probe on the top features, with as many rows as training has.
        size: rows of training.
        middle: by how much the best depth below the top beats it.
        spread: effective rank of the top features, a share of what it could be.
        text: whether the rows are texts.
    """

    probe: float
    size: int
    middle: float
    spread: float
    text: bool

    def vector(self) -> np.ndarray:
        """In the order of FEATURES."""
        return np.array([logit(self.probe), math.log10(self.size / 1000), self.middle, self.spread, float(self.text)])


@dataclass(frozen=True)
class Forecast:
    """The score that a strategy is likely to reach, and where it lies in 9 of 10 cases."""

    score: float
    low: float
    high: float


def logit(share: float) -> float:
    """The log odds of an accuracy."""
    share = min(max(share, _LOWEST), _HIGHEST)
    return math.log(share / (1 - share))


def from_logit(value: float) -> float:
    """The accuracy of log odds."""
    return 1 / (1 + math.exp(-min(max(value, -30.0), 30.0)))


@cache
def numbers() -> dict[str, Any]:
    """The shipped regression."""
    found: dict[str, Any] = json.loads(ASSET.read_text(encoding="utf-8"))
    return found


def forecast(kind: str, facts: Facts, model: dict[str, Any] | None = None) -> Forecast | None:
    """The likely accuracy of a strategy; None where the regression has not seen it.

    Args:
        kind: of the strategy.
        facts: of the problem.
        model: another regression than the shipped one.
    """
    model = numbers() if model is None else model
    fitted = model["strategies"].get(kind)
    if fitted is None:
        return None
    standard = (facts.vector() - np.array(model["means"])) / np.array(model["scales"])
    standard = np.clip(standard, -_FARTHEST, _FARTHEST)
    middle = logit(facts.probe) + fitted["intercept"] + float(np.dot(fitted["weights"], standard))
    low, high = (from_logit(middle + sign * fitted["error"]) for sign in (-1, 1))
    return Forecast(from_logit(middle), low, high)


def origin_in_words(model: dict[str, Any] | None = None) -> str:
    """Where the numbers come from."""
    found = numbers() if model is None else model
    return str(found["origin"])
