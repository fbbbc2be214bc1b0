"""Scores, intervals and times as the page says them."""

from __future__ import annotations

from typing import Any

_SHARES = ("accuracy", "f1", "precision", "recall", "ece")
_NOT_SCORES = ("samples", "loss")


def scores_of(split: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a split, with their intervals, as they are shown."""
    found = []
    for name, value in split.items():
        if name in _NOT_SCORES or name.endswith(("_ci95", "_samples")):
            continue
        interval = split.get(f"{name}_ci95")
        share = is_share(name)
        found.append({
            "name": name, "label": name.replace("_", " "), "value": value, "interval": interval, "share": share,
            "shown": number(value, share), "low": number(interval[0], share) if interval else "",
            "high": number(interval[1], share) if interval else "",
        })  # fmt: skip
    return found


def is_share(name: str) -> bool:
    """Whether a metric is a share, shown in per cent."""
    return name.endswith(_SHARES) or name.endswith("average_precision")


def number(value: Any, share: bool) -> str:
    """A score for people."""
    if not isinstance(value, (int, float)):
        return "undefined"
    if share:
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def whiskers(part: dict[str, Any]) -> dict[str, Any]:
    """Scores with intervals, placed in per cent of a common track."""
    rows = [row for row in part["parts"] if row["score"] is not None]
    ends = [end for row in rows for end in (row["ci95"] or [row["score"]])] + [row["score"] for row in rows]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    pad = (high - low) * 0.08 or 0.01
    low, span = low - pad, (high - low) + 2 * pad
    share = is_share(part["metric"])
    placed = []
    for row in rows:
        left, right = row["ci95"] or [row["score"]] * 2
        placed.append({
            "label": row["label"], "samples": row["samples"], "shown": number(row["score"], share),
            "at": 100 * (row["score"] - low) / span, "from": 100 * (left - low) / span,
            "width": 100 * (right - left) / span,
            "said": f"95% between {number(left, share)} and {number(right, share)}" if row["ci95"] else "no interval",
        })  # fmt: skip
    return {"name": part["name"], "metric": part["metric"].replace("_", " "), "rows": placed}


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
