"""Which of the compared to take: the cheapest that is not significantly worse than the best, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_finetune.publish.report_words import duration, is_share

SIGNIFICANT = 0.05  # of Holm's corrected p
_MUCH = 0.03  # of a share, that may be lost
_CHEAPER = 0.9  # of the seconds: less of a difference is none
_LONE = (
    "One seed each: this tells these models apart, not the strategies; seeds=5 would tell how much of it is the chance "
    "of training."
)


def chosen(
    cells: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], *, metric: str, greater: bool, lone: bool
) -> dict[str, Any]:
    """The choice and a plain sentence.

    Args:
        cells: of `compare_scores`, finished ones.
        pairs: of them, with p_holm.
        metric: by which they are compared.
        greater: whether more of it is better.
        lone: whether each has one seed.

    Returns:
        `cell`: whom to take, `best`: who scores best, `sentence`; cell is None where no score exists.
    """
    scored = [cell for cell in cells if cell["score"]["mean"] is not None]
    if not scored:
        return {"cell": None, "best": None, "sentence": f"None has a value of {metric}: there is nothing to choose by."}
    sign = 1.0 if greater else -1.0
    best = max(scored, key=lambda cell: sign * cell["score"]["mean"])
    close = [cell for cell in scored if cell is best or _not_worse(cell, best, pairs)]
    cheapest = min(close, key=lambda cell: cell["seconds"])
    take = cheapest if cheapest["seconds"] < _CHEAPER * best["seconds"] else best
    said = _why_best(best, scored, pairs, metric) if take is best else _why_cheap(take, best, pairs, metric)
    sentence = f"Take {take['name']}: {said}"
    if len(scored) < 2:
        sentence = f"Only {take['name']} has finished, with {metric} {number(take['score']['mean'], metric)}."
    return {"cell": take["name"], "best": best["name"], "sentence": f"{sentence} {_LONE}" if lone else sentence}


def pair_of(one: dict[str, Any], other: dict[str, Any], pairs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Their test; None where there is none."""
    return next((pair for pair in pairs if {pair["first"], pair["second"]} == {one["name"], other["name"]}), None)


def _not_worse(cell: dict[str, Any], best: dict[str, Any], pairs: Sequence[dict[str, Any]]) -> bool:
    """Not significantly; what cannot be tested counts as worse."""
    pair = pair_of(cell, best, pairs)
    return pair is not None and pair["p_holm"] is not None and pair["p_holm"] >= SIGNIFICANT


def _why_best(
    best: dict[str, Any], scored: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], metric: str
) -> str:
    score = f"it scores best ({metric} {number(best['score']['mean'], metric)})"
    cheaper = [cell for cell in scored if cell["seconds"] < _CHEAPER * best["seconds"]]
    if not cheaper:
        return f"{score} and nothing else costs clearly less ({duration(best['seconds'])} a run)."
    untested = [cell["name"] for cell in cheaper if (pair := pair_of(cell, best, pairs)) is None or pair["p"] is None]
    if untested:
        return f"{score}; whether that is chance could not be tested against {', '.join(untested)}."
    least = min(cheaper, key=lambda cell: cell["seconds"])
    return (
        f"{score} in {duration(best['seconds'])} a run, and everything cheaper (from {duration(least['seconds'])}) is "
        f"significantly worse."
    )


def _why_cheap(take: dict[str, Any], best: dict[str, Any], pairs: Sequence[dict[str, Any]], metric: str) -> str:
    pair = pair_of(take, best, pairs)
    assert pair is not None  # else it would count as worse
    sign = 1.0 if pair["first"] == best["name"] else -1.0
    told = sign * pair["difference"]
    times = best["seconds"] / max(take["seconds"], 1e-9)
    interval = sorted(sign * end for end in pair["ci95"]) if pair["ci95"] else None
    ends = [gap(end, metric).removesuffix(" points") for end in interval or ()]
    between = f", 95% between {ends[0]} and {ends[1]}" if ends else ""
    scores = f"{number(take['score']['mean'], metric)} against {number(best['score']['mean'], metric)}"
    return (
        f"a run costs {duration(take['seconds'])}, {times:.2g} times less than {best['name']}, which scores best. Its "
        f"{metric} is {scores}, and that difference ({gap(told, metric)}{between}) may be chance "
        f"(p = {pair['p_holm']:.2g}, corrected for all pairs).{_at_worst(told, interval, metric)}"
    )


def _at_worst(told: float, interval: Sequence[float] | None, metric: str) -> str:
    """A warning where so little is known that much may be lost."""
    lost = 0.0 if interval is None else interval[1] if told >= 0 else -interval[0]
    if not is_share(metric) or lost < _MUCH:
        return ""
    return f" It may also be as much as {100 * lost:.0f} points: more seeds or more test rows would tell."


def number(value: float, metric: str) -> str:
    """A score as sentences have it."""
    return f"{100 * value:.1f}%" if is_share(metric) else f"{value:.4g}"


def gap(value: float, metric: str) -> str:
    """A difference of scores: of shares in points."""
    return f"{100 * value:+.1f} points" if is_share(metric) else f"{value:+.3g}"
