"""The regression behind the advice, fitted on results/advice.jsonl, and how good its advice is on data it has not seen.

Every score is foretold by numbers that were fitted without all problems of the same source. Fitted is, for each
strategy, the difference of the log odds of its test accuracy to those of the linear probe: a regression on five facts
that results move away from a prior. Intervals are the 90% quantile of what such forecasts missed by.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from advice_cells import USUAL, Lines, Scored, earlier, grouped, mean_scores, merged, scored

from hf_finetune.choice.forecast import ASSET, FEATURES, LEVEL, forecast, logit
from hf_finetune.choice.verdict import Option, in_order

# What was thought before there were results, which move it: (intercept, weights of the facts). With few rows nothing is
# gained by changing features, with more it is, most by changing all (Kornblith et al. 2019, arXiv:1805.08974); a head
# that is fitted first is a better start (Kumar et al. 2022, arXiv:2202.10054); random weights need rows.
PRIOR: dict[str, tuple[float, ...]] = {
    "head": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "freeze": (0.15, 0.0, 0.15, 0.1, 0.0, 0.0),
    "lora": (0.15, 0.0, 0.2, 0.1, 0.0, 0.0),
    "lp_ft": (0.2, 0.0, 0.25, 0.1, 0.0, 0.0),
    "full": (0.15, 0.0, 0.3, 0.1, 0.0, 0.0),
    "scratch": (-2.3, -0.8, 0.8, 0.0, 0.0, 0.0),
}
PENALTY = (1.0, 4.0)  # what the prior counts, in cells: its intercept, its weights
_WIDE = 1.5  # half the width of an interval with one cell, in log odds; it falls with the root of the cells
# Of the facts, fixed, so that a fact that hardly varies among the cells cannot be given a large weight.
MEANS, SCALES = (1.0, -0.3, *USUAL, 0.3), (1.0, 0.6, 0.05, 0.2, 0.5)
BIT = "BiT"  # full fine-tuning for as many steps as BiT's size rule says: a rule, not a strategy to be foretold
APART = 0.05  # strategies of a cell that differ by so much
_NEARLY_ALL = 0.9  # of the cells, in which a strategy must have run to be a rule


def regression(cells: Sequence[Scored]) -> dict[str, Any]:
    """The numbers of `assets/advice.json` without the errors and where they come from; a cell counts once."""
    cells = merged(cells)
    means, scales = np.array(MEANS), np.array(SCALES)
    strategies = {}
    for kind, prior in PRIOR.items():
        own = [cell for cell in cells if kind in cell.scores]
        if not own:
            continue
        inputs = np.array([[1.0, *(cell.facts.vector() - means) / scales] for cell in own])
        gains = np.array([logit(cell.scores[kind]) - logit(cell.facts.probe) for cell in own])
        weight = np.diag([PENALTY[0], *[PENALTY[1]] * len(FEATURES)])
        moved = np.linalg.solve(inputs.T @ inputs + weight, inputs.T @ (gains - inputs @ np.array(prior)))
        intercept, *weights = np.array(prior) + moved
        strategies[kind] = {
            "intercept": round(float(intercept), 4),
            "weights": [round(float(weight), 4) for weight in weights],
            "error": 0.0,
            "cells": len(own),
        }
    return {
        "format": 1,
        "features": list(FEATURES),
        "means": list(MEANS),
        "scales": list(SCALES),
        "strategies": strategies,
    }


def unseen(cells: Sequence[Scored]) -> list[dict[str, float]]:
    """Of every cell the scores foretold by a regression on all other sources."""
    found: list[dict[str, float]] = [{} for _ in cells]
    for source in dict.fromkeys(cell.source for cell in cells):
        model = regression([cell for cell in cells if cell.source != source])
        for place, cell in enumerate(cells):
            if cell.source == source:
                guesses = {kind: forecast(kind, cell.facts, model) for kind in cell.scores}
                found[place] = {kind: guess.score for kind, guess in guesses.items() if guess is not None}
    return found


def fit(lines: Lines, techniques: Lines = ()) -> str:
    """Write the asset; what was fitted, in words.

    Args:
        lines: of results/advice.jsonl.
        techniques: of results/techniques.jsonl.
    """
    cells = merged([*scored(lines), *earlier(techniques)])
    model, guesses = regression(cells), unseen(cells)
    for kind, fitted in model["strategies"].items():
        misses = sorted(
            abs(logit(cell.scores[kind]) - logit(guess[kind]))
            for cell, guess in zip(cells, guesses, strict=True)
            if kind in guess and kind in cell.scores
        )
        place = min(len(misses) - 1, math.ceil(LEVEL * (len(misses) + 1)) - 1)
        fitted["error"] = round(max(float(misses[place]), _WIDE / math.sqrt(len(misses))), 4)
    problems, sources = ({getattr(cell, name) for cell in cells} for name in ("problem", "source"))
    sizes = ", ".join(f"{size:,}" for size in sorted({cell.size for cell in cells}))
    model["origin"] = (
        f"a rule of thumb, moved by {len(cells)} cells of {len(problems)} problems with {sizes} labelled rows"
    )
    model["sources"] = sorted(sources)
    ASSET.write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
    return f"{ASSET}: {model['origin']}"


def advised(cell: Scored, guess: dict[str, float]) -> str:
    """What the advice takes, by the package's own rule."""
    from hf_finetune.choice.forecast import Forecast

    options = [Option(kind, cell.costs[kind], Forecast(score, score, score)) for kind, score in guess.items()]
    return in_order(options, cell.corner)[0].kind


def by_size(cells: Sequence[Scored], cell: Scored) -> str:
    """The strategy that is best on average on other sources with as many rows."""
    others = [other for other in cells if other.source != cell.source]
    return _best_on([other for other in others if other.size == cell.size] or others, cell)


def by_evidence(cells: Sequence[Scored], cell: Scored) -> str:
    """LogME alone: the head above a bound, full below it; the bound that is best on the other sources."""
    others = [other for other in cells if other.source != cell.source]
    bounds = sorted({other.evidence for other in others if not math.isnan(other.evidence)})

    def lost(bound: float) -> float:
        taken = [(other, "head" if other.evidence >= bound else "full") for other in others]
        return float(np.mean([_best(o) - o.scores[kind] for o, kind in taken if kind in o.scores]))

    bound = min([*bounds, math.inf], key=lost)  # a cell without LogME takes full
    return "head" if cell.evidence >= bound else "full"


def _best_on(cells: Sequence[Scored], cell: Scored) -> str:
    return max(cell.scores, key=lambda kind: np.mean([c.scores.get(kind, 0.0) for c in merged(cells)]))


def choices(cells: Sequence[Scored]) -> dict[str, list[str]]:
    """Of every rule, the strategy that it takes in each cell."""
    guesses = unseen(cells)
    kinds = dict.fromkeys(kind for cell in cells for kind in cell.scores)
    everywhere = [kind for kind in kinds if sum(kind in cell.scores for cell in cells) >= _NEARLY_ALL * len(cells)]
    taken = {"the advice": [advised(cell, guess) for cell, guess in zip(cells, guesses, strict=True)]}
    taken |= {f"always {kind}": [kind] * len(cells) for kind in everywhere}
    taken["size alone"] = [by_size(cells, cell) for cell in cells]
    taken["LogME alone"] = [by_evidence(cells, cell) for cell in cells]
    return taken


def regret(cell: Scored, kind: str) -> float:
    """The best score of the draw minus that of the strategy that was taken."""
    return _best(cell) - cell.scores.get(kind, 0.0)


def regrets(draws: Sequence[Scored], taken: Sequence[str]) -> np.ndarray:
    """Of each cell the best strategy's mean score over its draws minus the mean of what was taken in each, (cells,).

    Training on 90 rows has luck of its own, in the rows and in the start: the best of six runs of one draw is in part
    the luckiest. A strategy that is best on average over the draws is what a rule could have known. NaN where what was
    taken did not run.
    """
    lost = []
    for places in grouped(draws).values():
        own = [draws[place] for place in places]
        scores = mean_scores(own)
        best = max(score for kind, score in scores.items() if kind != BIT)
        lost.append(best - np.mean([draws[place].scores.get(taken[place], math.nan) for place in places]))
    return np.array(lost)


def fair_regret(cell: Scored, kind: str) -> float:
    """Regret against a best strategy that was chosen on other test rows: every second one, then the others.

    The best of six scores is in part the luckiest: of strategies that are equally good, `regret` is above zero. This
    one is zero on average then. NaN where the rows are not known.
    """
    right = {name: bits for name, bits in cell.right.items() if name != BIT}
    if kind not in right:
        return math.nan
    lost = []
    for half in (0, 1):
        best = max(right, key=lambda name: right[name][half::2].mean())
        lost.append(right[best][1 - half :: 2].mean() - right[kind][1 - half :: 2].mean())
    return float(np.mean(lost))


def _best(cell: Scored) -> float:
    return max(score for kind, score in cell.scores.items() if kind != BIT)


def table(lines: Lines, techniques: Lines = ()) -> str:
    """Markdown: what each rule loses against the best strategy of every cell."""
    draws = [*scored(lines), *earlier(techniques)]
    cells = merged(draws)
    apart = np.array([max(_serious(cell)) - min(_serious(cell)) >= APART for cell in cells])
    rows = [f"| rule | mean regret | 90% within | worst | strategies {APART:.0%} apart | single draws, less luck |"]
    rows += ["|---|---|---|---|---|---|"]
    for name, taken in choices(draws).items():
        values = 100 * regrets(draws, taken)
        fair = 100 * np.array([fair_regret(draw, kind) for draw, kind in zip(draws, taken, strict=True)])
        there = np.nanmean(values[apart]) if apart.any() else math.nan
        less = np.nanmean(fair) if np.isfinite(fair).any() else math.nan
        told = (np.nanmean(values), np.nanquantile(values, 0.9), np.nanmax(values), there, less)
        ran = int(np.isfinite(values).sum())
        rule = f"{name} ({ran} cells)" if ran < len(values) else name
        rows.append(f"| {rule} | {' | '.join('-' if math.isnan(value) else f'{value:.2f}' for value in told)} |")
    missed = _misses(cells)
    shares = [draw.share for draw in draws if not math.isnan(draw.share)] or [math.nan]
    counted = (
        f"{len(cells)} cells of {len(draws)} draws, {int(apart.sum())} of them with strategies {APART:.0%} or more"
    )
    took = f"{np.median(shares):.1%} of a full run's time in the median, {max(shares):.1%} at most"
    rows += ["", f"{counted} apart (without scratch); points of accuracy. The advice took {took}.", "", missed]
    return "\n".join(rows)


def _serious(cell: Scored) -> list[float]:
    return [score for kind, score in cell.scores.items() if kind not in ("scratch", BIT)]


def _misses(cells: Sequence[Scored]) -> str:
    guesses = unseen(cells)
    lines = ["| strategy | cells | mean accuracy | mean miss of the forecast |", "|---|---|---|---|"]
    for kind in dict.fromkeys(kind for cell in cells for kind in cell.scores):
        own = [
            (cell, guess) for cell, guess in zip(cells, guesses, strict=True) if kind in cell.scores and kind in guess
        ]
        if not own:  # BiT's rule is no strategy to be foretold
            continue
        mean = np.mean([cell.scores[kind] for cell, _ in own])
        miss = np.mean([abs(cell.scores[kind] - guess[kind]) for cell, guess in own])
        lines.append(f"| {kind} | {len(own)} | {mean:.3f} | {100 * miss:.1f} points |")
    return "\n".join(lines)
