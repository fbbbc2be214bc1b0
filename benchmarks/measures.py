"""From the rounds of a results file to medians, ratios within rounds, and intervals of accuracies."""

from __future__ import annotations

import statistics
from typing import Any

Record = dict[str, Any]


def medians(record: Record) -> dict[str, dict[str, float]]:
    """Contestant -> measure -> median over the rounds that it ran in; numbers only."""
    values: dict[str, dict[str, list[float]]] = {}
    for each in record["rounds"]:
        for name, measures in each.items():
            for measure, value in measures.items():
                if isinstance(value, (int, float)):
                    values.setdefault(name, {}).setdefault(measure, []).append(value)
    return {name: {key: statistics.median(of) for key, of in found.items()} for name, found in values.items()}


def value_of(record: Record, bar: dict[str, Any]) -> tuple[float, int] | None:
    """A bar's median over the rounds in which all of its contestants ran, and how many rounds those are."""
    found = []
    for each in record["rounds"]:
        top = each.get(bar["of"], {}).get(bar["measure"])
        taken = each.get(bar["minus"], {}).get(bar["measure"]) if bar["minus"] else 0.0
        bottom = each.get(bar["over"], {}).get(bar["over_measure"] or bar["measure"]) if bar["over"] else 1.0
        if top is not None and taken is not None and bottom:
            found.append((top - taken) / bottom)
    return (statistics.median(found), len(found)) if found else None


def is_met(bar: dict[str, Any], value: float) -> bool:
    """Whether a bar's value is on the promised side of its bound."""
    return bool(value >= bar["at_least"] if bar["at_least"] is not None else value <= bar["at_most"])


def wilson(share: float, rows: float) -> tuple[float, float]:
    """The 95% interval of a share of so many rows (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5
    return centre - half, centre + half
