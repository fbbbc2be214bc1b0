"""Learning curves of one run or of several: loss, metric, rate by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_finetune.publish import charts
from hf_finetune.publish.charts import Series
from hf_finetune.publish.report_words import is_share

History = Sequence[dict[str, Any]]
KINDS = ("main", "second", "third", "fourth", "fifth", "sixth")
Figure = dict[str, Any]
_POINTS = 1_000  # of a line: more than a screen has pixels for it, and few enough for a page that is mailed


def curves_of(history: History, metrics: Sequence[str], best_step: int | None) -> list[Figure]:
    """Figures {"title", "chart", "legend": [(name, kind)], "note"} of a run.

    Args:
        history: the Trainer's log.
        metrics: validation metrics to draw, together where all are shares.
        best_step: of the checkpoint that was kept.
    """
    planes = [list(metrics)] if all(map(is_share, metrics)) else [[metric] for metric in metrics]
    figures = [_loss(history), *(_metric(history, plane, best_step) for plane in planes if plane), _rates(history)]
    return [figure for figure in figures if figure["chart"]]


def curves_of_runs(runs: Sequence[tuple[str, History]], metric: str) -> list[Figure]:
    """Validation loss and metric of several runs in one plane each."""
    figures = []
    for title, key in (("Validation loss", "eval_loss"), (f"Validation {metric}", f"eval_{metric}")):
        series = [
            Series(name, _points(history, key), KINDS[place % len(KINDS)], dots=True)
            for place, (name, history) in enumerate(runs)
        ]
        figures.append(_figure(title, charts.line_chart(f"{title} over epochs", series, "epoch"), series))
    return [figure for figure in figures if figure["chart"]]


def tried(train: dict[str, Any]) -> Figure | None:
    """Of a fit without steps: the validation score of every regularisation that was tried."""
    if not train.get("tried"):
        return None
    points = [(float(place), float(score)) for place, score in enumerate(train["tried"].values())]
    series = [Series("validation", points, dots=True)]
    figure = _figure(
        "Regularisation tried",
        charts.line_chart("Validation score of each regularisation", series, "value tried, in order"),
        [],
    )
    return figure | {"note": "In order: " + ", ".join(train["tried"])}


def _figure(title: str, chart: str, series: Sequence[Series]) -> Figure:
    legend = [(one.name, one.kind) for one in series if one.points]
    return {"title": title, "chart": chart, "legend": legend if len(legend) > 1 else [], "note": ""}


def _points(history: History, key: str) -> list[tuple[float, float]]:
    points = [
        (float(entry["epoch"]), float(entry[key]))
        for entry in history
        if isinstance(entry.get(key), (int, float)) and entry.get("epoch") is not None
    ]
    return thinned(points)


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about a thousand: of every stretch its least and its greatest, so that no peak is lost, and both ends."""
    if len(points) <= _POINTS:
        return points
    kept = {0, len(points) - 1}
    for stretch in np.array_split(np.arange(len(points)), _POINTS // 2):
        values = [points[place][1] for place in stretch]
        kept |= {int(stretch[np.argmin(values)]), int(stretch[np.argmax(values)])}
    return [points[place] for place in sorted(kept)]


def _loss(history: History) -> Figure:
    series = [
        Series("training", _points(history, "loss"), "quiet"),
        Series("validation", _points(history, "eval_loss"), "main", dots=True),
    ]
    return _figure("Loss", charts.line_chart("Training and validation loss over epochs", series, "epoch"), series)


def _metric(history: History, metrics: Sequence[str], best_step: int | None) -> Figure:
    series = [
        Series(metric, _points(history, f"eval_{metric}"), KINDS[place % len(KINDS)], dots=True)
        for place, metric in enumerate(metrics)
    ]
    title = f"Validation {metrics[0].replace('_', ' ')}" if len(metrics) == 1 else "Validation scores"
    figure = _figure(title, charts.line_chart(f"{title} over epochs", series, "epoch"), series)
    kept = next((e["epoch"] for e in history if e.get("step") == best_step and "eval_loss" in e), None)
    if kept is not None:
        figure["note"] = f"Kept: the checkpoint of epoch {kept:.3g}, step {best_step:,}."
    return figure


def _rates(history: History) -> Figure:
    found: dict[str, list[tuple[float, float, float]]] = {}
    for entry in history:
        for kind, (low, high) in (entry.get("rates") or {}).items():
            found.setdefault(kind, []).append((float(entry["epoch"]), low, high))
    bands = [(name, KINDS[place % len(KINDS)], _fewer(points)) for place, (name, points) in enumerate(found.items())]
    chart = charts.band_chart("Learning rate of each group over epochs", bands, "epoch")
    wide = any(low != high for _, _, points in bands for _, low, high in points)
    note = "A band spans the rates of a group's layers, the lowest blocks at its foot." if wide else ""
    return {"title": "Learning rate", "chart": chart, "legend": [(n, k) for n, k, _ in bands], "note": note}


def _fewer(band: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """A band of at most so many points, evenly among its own: rates change smoothly."""
    if len(band) <= _POINTS:
        return band
    return [band[int(place)] for place in np.linspace(0, len(band) - 1, _POINTS)]
