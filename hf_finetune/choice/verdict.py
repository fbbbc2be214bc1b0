"""Which strategy to take: by the forecasts where there are any, else by the corner where the data stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hf_finetune.choice.forecast import Facts, Forecast, forecast

if TYPE_CHECKING:
    from hf_finetune.choice.measures import Measures

TIE = 0.005  # accuracies so near are alike, and the cheaper strategy is taken
MANY_ROWS, MANY_A_CLASS = 10_000, 1_000  # of training from which data is "much"
SIMILAR = 0.6  # of the way from chance to perfection that a probe of the head's input comes
_AGAINST = 3.0  # a middle depth that is a point better counts as three points off that
_USUAL_SPREAD = 0.4  # where it was not measured

Amount = Literal["little", "much"]
Likeness = Literal["similar", "dissimilar"]
# The table of the field's seeds, in words of strategies: the first is taken, the others are the next to try.
CORNERS: dict[tuple[Amount, Likeness], tuple[str, ...]] = {
    ("little", "similar"): ("head", "lp_ft", "lora"),
    ("little", "dissimilar"): ("freeze", "lora", "full"),
    ("much", "similar"): ("full", "lp_ft", "lora"),
    ("much", "dissimilar"): ("full", "scratch", "lora"),
}


@dataclass(frozen=True)
class Option:
    """A strategy that could be taken.

    Args:
        kind: of the strategy.
        seconds: of a run on this machine.
        forecast: of its test accuracy; None where nothing was calibrated for this kind of labels.
    """

    kind: str
    seconds: float
    forecast: Forecast | None


def corner_of(measures: Measures) -> tuple[Amount, Likeness]:
    """Where the data stands: how much there is, and how like it is to what the checkpoint knows.

    Much is 10,000 rows, or 1,000 of every class on average. Similar is data whose labels a linear probe reads off the
    checkpoint's last features, with a middle depth that does not do it better (Yosinski et al. 2014, arXiv:1411.1792:
    features grow specific to what was pretrained towards the top).
    """
    rows, classes = measures.train_rows, len(measures.classes)
    much = rows >= MANY_ROWS or (classes > 0 and rows >= MANY_A_CLASS * classes)
    return "much" if much else "little", "similar" if similarity(measures) >= SIMILAR else "dissimilar"


def similarity(measures: Measures) -> float:
    """0 to 1; see `corner_of`."""
    return max(0.0, measures.above_chance - _AGAINST * measures.middle_gain)


def facts_of(measures: Measures, text: bool) -> Facts:
    """What the forecasts are made from."""
    spread = _USUAL_SPREAD if measures.spread is None else measures.spread
    return Facts(measures.probe, measures.train_rows, measures.middle_gain, spread, text)


def options_of(measures: Measures, seconds: Mapping[str, float], text: bool) -> list[Option]:
    """Every strategy with its forecast, the most promising first; by the corner's order where there are no forecasts.

    Args:
        measures: of the data.
        seconds: of a run, by kind.
        text: whether the rows are texts.
    """
    calibrated = measures.metric == "accuracy"
    facts = facts_of(measures, text)
    options = [Option(kind, cost, forecast(kind, facts) if calibrated else None) for kind, cost in seconds.items()]
    ordered = in_order(options, CORNERS[corner_of(measures)])  # before they are cut: below chance too some are better
    return [replace(option, forecast=_from_chance(option.forecast, measures.chance)) for option in ordered]


def _from_chance(guess: Forecast | None, chance: float) -> Forecast | None:
    """The forecast from the commonest class's share on: log odds know nothing of it, and any training finds it."""
    return guess and Forecast(*(max(value, chance) for value in (guess.score, guess.low, guess.high)))


def in_order(options: list[Option], corner: tuple[str, ...]) -> list[Option]:
    """The one to take first: the cheapest of those whose forecast is within half a point of the best; then the others.

    Random weights are taken first only in the corner that they belong to, much data unlike the checkpoint's, whatever
    is foretold for them. Options without a forecast come after those that have one, in the corner's order.
    """
    foretold = [(option.forecast.score, option) for option in options if option.forecast is not None]
    if not foretold:
        return sorted(options, key=lambda option: _place(option.kind, corner))
    serious = [pair for pair in foretold if pair[1].kind != "scratch" or "scratch" in corner] or foretold
    best = max(score for score, _ in serious)
    near = [option for score, option in serious if score >= best - TIE]
    first = min(near, key=lambda option: option.seconds)
    others = sorted((pair for pair in foretold if pair[1] is not first), key=lambda pair: -pair[0])
    without = [option for option in options if option.forecast is None]
    return [first, *(option for _, option in others), *sorted(without, key=lambda o: _place(o.kind, corner))]


def _place(kind: str, corner: tuple[str, ...]) -> int:
    return corner.index(kind) if kind in corner else len(corner)
