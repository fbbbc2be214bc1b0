"""Several runs side by side: scores, curves, classes, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_finetune.publish.report_answers import SINGLE
from hf_finetune.publish.report_curves import curves_of_runs
from hf_finetune.publish.report_tasks import worst
from hf_finetune.publish.report_view import Material, curve_metrics
from hf_finetune.publish.report_words import whiskers
from hf_finetune.publish.seed_scores import on_the_same_rows


def compared(runs: Sequence[Material], views: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the template needs of several runs.

    Args:
        runs: their files, their names all different.
        views: of each, from `report_view.view_of`.
    """
    metric = (curve_metrics(runs[0]) or ["loss"])[0]
    histories = [(run.name, run.data.get("history", ())) for run in runs]
    return {
        "names": [run.name for run in runs],
        "scores": _scores(runs, views),
        "figures": curves_of_runs(histories, metric),
        "classes": _classes(views),
        "settings": settings_that_differ(runs),
        "notes": _notes(runs),
    }


def _scores(runs: Sequence[Material], views: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every metric that at least one run has, with the runs below each other on one scale."""
    names = dict.fromkeys(score["name"] for view in views for score in view["scores"])
    found = []
    for name in names:
        parts = []
        for run, view in zip(runs, views, strict=True):
            score = next((one for one in view["scores"] if one["name"] == name), None)
            if score and score["value"] is not None:
                parts.append({"label": run.name, "samples": view["samples"], "score": score["value"],
                              "ci95": score["interval"]})  # fmt: skip
        if parts:
            found.append(whiskers({"name": name.replace("_", " "), "metric": name, "parts": parts}) | {"metric": ""})
    return found


def _classes(views: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """F1 of every class by run, where the runs tell the same classes."""
    found = []
    for place, task in enumerate(views[0]["tasks"]):
        others = [view["tasks"][place] if place < len(view["tasks"]) else {} for view in views]
        tables = [one.get("classes") for one in others]
        if not all(tables):
            continue
        names = [[row[0] for row in table["all"]] for table in tables if table]
        if any(one != names[0] for one in names):
            continue
        f1 = [[row[table["columns"].index("F1")] for row in table["all"]] for table in tables if table]
        rows = [[name, *(column[row] for column in f1)] for row, name in enumerate(names[0])]
        title = "F1 by class" + (f", {task['name']}" if task["name"] else "")
        shown, note = worst(rows, lambda row: min((f1 for f1 in row[1:] if f1 is not None), default=None))
        columns = ["class", *(view["name"] for view in views)]
        found.append({"title": title, "columns": columns, "rows": shown, "note": note})
    return found


def settings_that_differ(runs: Sequence[Material]) -> list[tuple[str, list[str]]]:
    """Keys of the recipes with the value of each run, where these are not all the same."""
    flat = [_flat(run.recipe.model_dump(mode="json", exclude={"output_dir", "expected"})) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    lines = [(key, [str(one.get(key, "–")) for one in flat]) for key in keys]
    return [(key, values) for key, values in lines if len(set(values)) > 1]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    pairs = (_flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items())
    return {key: leaf for pair in pairs for key, leaf in pair.items()}


def _notes(runs: Sequence[Material]) -> list[str]:
    """Whether they were tested on the same rows and, if so, where two of them differ."""
    if not all(run.answers for run in runs):
        return []
    first = runs[0].answers[0]
    if not on_the_same_rows([run.answers for run in runs]):
        return ["They were not tested on the same rows and labels: the scores are not of the same thing."]
    notes = [
        "All were tested on the same rows. Intervals that overlap do not mean that two runs are equal: the "
        "rows are the same for all, so that differences are surer than the intervals."
    ]
    if len(runs) == 2 and first.problem == SINGLE:
        one, two = (run.answers[0].decided == run.answers[0].truth for run in runs)
        notes.append(
            f"Both are right on {int((one & two).sum()):,} rows, {runs[0].name} alone on {int((one & ~two).sum()):,}, "
            f"{runs[1].name} alone on {int((~one & two).sum()):,}, neither on {int((~one & ~two).sum()):,}."
        )
    return notes
