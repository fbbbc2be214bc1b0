"""Cells of the advice's benchmark, from its results and from those of the techniques."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from advice_problems import PROBLEMS

from hf_finetune.choice.forecast import Facts
from hf_finetune.choice.verdict import CORNERS

USUAL = (0.02, 0.4)  # gain of middle depths and effective rank, where they were not measured
Lines = Sequence[dict[str, Any]]


class Scored(NamedTuple):
    """One draw of a cell, with its advice and its runs; a cell is a problem, a size and a checkpoint."""

    source: str
    problem: str
    size: int
    facts: Facts
    evidence: float
    costs: dict[str, float]
    scores: dict[str, float]
    share: float  # of a full run's time that the advice took
    corner: tuple[str, ...] = ()  # the strategies of the corner where the data stands
    right: dict[str, np.ndarray] = {}  # noqa: RUF012 (never changed): by strategy, which test rows, (rows,) of 0 and 1
    checkpoint: str = ""

    @property
    def cell(self) -> tuple[str, int, str]:
        """What draws with other seeds have in common."""
        return self.problem, self.size, self.checkpoint


def scored(lines: Lines) -> list[Scored]:
    """Draws that have an advice, head, full and one more; a strategy that was run twice counts with its last run."""
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        cells[(line["problem"], line["size"], line["checkpoint"], line["seed"])][line["what"]] = line
    found = []
    for (problem, size, checkpoint, _), runs in cells.items():
        advice = runs.get("advice")
        scores = {kind: run["accuracy"] for kind, run in runs.items() if kind != "advice"}
        if advice is None or len(scores) < 3 or not {"head", "full"} <= scores.keys():
            continue
        evidence = advice["measures"]["depths"][-1]["evidence"]
        share = advice["seconds"] / advice["full_seconds"]
        facts = Facts(**advice["facts"])
        evidence = math.nan if evidence is None else evidence
        corner = CORNERS[tuple(advice["corner"])] if "corner" in advice else ()
        right = {kind: _bits(run["right"]) for kind, run in runs.items() if "right" in run}
        source, costs = PROBLEMS[problem].source, advice["costs"]
        found.append(Scored(source, problem, size, facts, evidence, costs, scores, share, corner, right, checkpoint))
    return found


def merged(draws: Sequence[Scored]) -> list[Scored]:
    """Each cell once: the mean facts, and the mean scores of the strategies that all of its draws have."""
    found = []
    for own in grouped(draws).values():
        first = draws[own[0]]
        facts = [draws[place].facts for place in own]
        probe, middle, spread = (
            float(np.mean([getattr(each, name) for each in facts])) for name in ("probe", "middle", "spread")
        )
        found.append(
            first._replace(
                facts=Facts(probe, first.facts.size, middle, spread, first.facts.text),
                scores=mean_scores([draws[place] for place in own]),
            )
        )
    return found


def grouped(draws: Sequence[Scored]) -> dict[tuple[str, int, str], list[int]]:
    """The places of the draws of every cell."""
    places: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for place, draw in enumerate(draws):
        places[draw.cell].append(place)
    return places


def mean_scores(draws: Sequence[Scored]) -> dict[str, float]:
    """Of the strategies that all draws have."""
    common = [kind for kind in draws[0].scores if all(kind in draw.scores for draw in draws)]
    return {kind: float(np.mean([draw.scores[kind] for draw in draws])) for kind in common}


def _bits(packed: dict[str, Any]) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(packed["bits"]), dtype=np.uint8), count=packed["rows"])


# What results/techniques.jsonl calls them, and the rows that learnt; its freeze trains two blocks.
_TECHNIQUES = {
    "features": "head",
    "freeze": "freeze",
    "LoRA": "lora",
    "lp_ft": "lp_ft",
    "full": "full",
    "scratch": "scratch",
}
_EARLIER = {"cifar10": ("cifar10", 4_500), "sst2": ("sst2", 3_800), "fashion_mnist": ("fashion", 5_400)}


def earlier(lines: Lines) -> list[Scored]:
    """Cells of results/techniques.jsonl, the mean of its seeds: the probe is strategy=features, on all rows.

    Depths and LogME were not measured then: they count as usual ones.
    """
    found = []
    for problem, (source, size) in _EARLIER.items():
        own = [line for line in lines if line["problem"] == problem and line["scale"] == "full"]
        scores, costs = ({kind: float(np.mean(each)) for kind, each in _by_kind(own, part, name).items()}
                         for part, name in (("test", "accuracy"), ("train", "seconds")))  # fmt: skip
        if "head" in scores:
            facts = Facts(scores["head"], size, *USUAL, source == "sst2")
            found.append(Scored(source, source, size, facts, math.nan, costs, scores, math.nan))
    return found


def _by_kind(lines: Lines, part: str, name: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["technique"] in _TECHNIQUES:
            values[_TECHNIQUES[line["technique"]]].append(line[part][name])
    return values
