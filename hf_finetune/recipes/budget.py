"""`budget=10min` of the verbs that make many runs: minutes of training for each."""

from __future__ import annotations

import re

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?)?", re.IGNORECASE)
_IN_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def minutes_of(budget: str) -> float | None:
    """`10min`, `90s` or `1.5h` in minutes; None where it is none of these, or too little or too much to be meant."""
    read = _BUDGET.fullmatch(budget.strip())
    minutes = float(read[1]) * _IN_MINUTES[(read[2] or "m")[0].lower()] if read else 0.0
    return minutes if 0 < minutes < 1e6 else None
