"""compare.html: one page of a comparison, from what compare.json holds and the first run of each combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hf_finetune.evaluation.paired import UNPAIRED
from hf_finetune.files import write_whole
from hf_finetune.publish.local_places import as_written, own_places, without
from hf_finetune.publish.report_compare import settings_that_differ
from hf_finetune.publish.report_curves import KINDS, curves_of_runs
from hf_finetune.publish.report_page import filled
from hf_finetune.publish.report_time import Point, time_chart
from hf_finetune.publish.report_view import Material, read_material, source_of
from hf_finetune.publish.report_words import duration, is_share, number, whiskers

_SECTIONS = (("take", "Which"), ("scores", "Scores"), ("tests", "Is it chance?"), ("metrics", "Every metric"),
             ("curves", "Learning"), ("failed", "Failed"), ("settings", "What differs"))  # fmt: skip
_METHOD = {
    True: "The dot is the mean over seeds; the bar holds the true mean with 95% certainty, over other seeds and other "
    "samples of this kind (Student's t over seeds and bootstrapped rows; shares such as accuracy by Wilson).",
    False: "One seed each: the bar holds the score on other samples of this kind with 95% certainty (shares by Wilson, "
    "else the bootstrap), and leaves out the chance of training.",
}
_TESTS = (
    "{method}. p: how often chance alone would make such a difference; corrected by Holm for "
    "all pairs together. Below 0.05 it is called real."
)


def write_page(found: Mapping[str, Any], folders: Sequence[Path], out: Path) -> None:
    """Draw the page.

    Args:
        found: see `hf_finetune.advice.compare_scores.results_of`.
        folders: of a finished run of each cell, in the order of `found["cells"]`.
        out: the file.
    """
    runs = [read_material(folder) for folder in folders]
    for run, cell in zip(runs, found["cells"], strict=True):
        run.name = cell["name"]
    one = view_of(found, runs)
    sections = [(name, title) for name, title in _SECTIONS if _is_there(name, one)]
    made = datetime.now(timezone.utc).isoformat(timespec="minutes")[:16].replace("T", " ")
    page = filled("compare.html", one=one, title=" · ".join(one["names"]), sections=sections, made=made)
    write_whole(out, without(page, as_written(own_places())))


def _is_there(name: str, one: Mapping[str, Any]) -> bool:
    held = {"tests": "pairs", "metrics": "others", "curves": "figures", "failed": "failed"}.get(name)
    return held is None or bool(one[held])


def view_of(found: Mapping[str, Any], runs: Sequence[Material]) -> dict[str, Any]:
    """What the template needs.

    Args:
        found: see `write_page`.
        runs: one of each cell, named as the cell is.
    """
    metric, cells = found["metric"], found["cells"]
    failed = [one["name"] for one in found["failed"]]
    names = [cell["name"] for cell in cells]
    histories = [(run.name, run.data.get("history", ())) for run in runs]
    seeds = found["seeds"]
    facts = [source_of(runs[0].recipe), f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"]
    return {
        "names": list(dict.fromkeys([*names, *failed])),
        "finished": names,
        "facts": [*facts, found["recipe"]],
        "budget": f"{found['budget'][:1].upper()}{found['budget'][1:]}.",
        "sentence": found["take"]["sentence"],
        "notes": found["notes"],
        "split": found["split"],
        "samples": found["samples"],
        "metric": metric.replace("_", " "),
        "several": len(seeds) > 1,
        "scores": _whiskers(found, metric, "Score"),
        "method": _METHOD[len(seeds) > 1],
        "time": _time(found),
        "cells": [_row(cell, found) for cell in cells],
        "baseline": _baseline(found),
        "pairs": [_pair(pair, metric) for pair in found["pairs"]],
        "tests": _tests(found["pairs"]),
        "others": [_whiskers(found, name, name.replace("_", " ")) for name in cells[0]["metrics"] if name != metric],
        "figures": curves_of_runs(histories, metric),
        "failed": found["failed"],
        "settings": settings_that_differ(runs),
    }


def _tests(pairs: Sequence[Mapping[str, Any]]) -> str:
    methods = list(dict.fromkeys(pair["method"] for pair in pairs))
    same = "" if UNPAIRED in methods else "The same rows for both, "
    words = f"{same}{', '.join(methods)}"
    return _TESTS.format(method=f"{words[:1].upper()}{words[1:]}")


def _whiskers(found: Mapping[str, Any], metric: str, title: str) -> dict[str, Any]:
    parts = [
        {"label": cell["name"], "samples": 0, "score": told["mean"], "ci95": told["ci95"]}
        for cell in found["cells"]
        if (told := cell["metrics"].get(metric)) is not None and told["mean"] is not None
    ]
    placed = whiskers({"name": title, "metric": metric, "parts": parts})
    times = {cell["name"]: duration(cell["seconds"]) for cell in found["cells"]}
    for row in placed["rows"]:
        row["samples_said"] = times[row["label"]]
    return placed if title != placed["metric"] else placed | {"metric": ""}


def _row(cell: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    told, share = cell["score"], is_share(found["metric"])
    interval = told["ci95"]
    return {
        "name": cell["name"],
        "taken": cell["name"] == found["take"]["cell"],
        "shown": number(told["mean"], share),
        "between": f"{number(interval[0], share)} – {number(interval[1], share)}" if interval else "–",
        "std": "–" if told["std"] is None else number(told["std"], share),
        "by_seed": ", ".join(number(value, share) for value in told["values"]),
        "validation": number(cell["validation"], share) if cell["validation"] is not None else "–",
        "time": duration(cell["seconds"]),
        "training": duration(cell["training_seconds"]),
        "epochs": "–" if cell["epochs"] is None else f"{cell['epochs']:.3g}",
        "cut_short": cell["cut_short"],
    }


def _baseline(found: Mapping[str, Any]) -> dict[str, str] | None:
    told = found["baseline"]
    return None if told is None else {"what": told["what"], "shown": number(told["score"], is_share(found["metric"]))}


def _pair(pair: Mapping[str, Any], metric: str) -> dict[str, str]:
    points, interval = is_share(metric), pair["ci95"]

    def gap(value: float) -> str:
        return f"{100 * value:+.1f}" if points else f"{value:+.3g}"

    chance = pair["p_holm"]
    return {
        "first": pair["first"],
        "second": pair["second"],
        "difference": gap(pair["difference"]) + (" points" if points else ""),
        "between": f"{gap(interval[0])} and {gap(interval[1])}" if interval else "–",
        "p": _chance(pair["p"]),
        "p_holm": _chance(chance),
        "verdict": "not tested" if chance is None else "real" if chance < 0.05 else "may be chance",
    }


def _chance(p: float | None) -> str:
    return "–" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _time(found: Mapping[str, Any]) -> dict[str, Any]:
    """Time against score, with the intervals."""
    points = [
        Point(cell["name"], cell["seconds"], cell["score"]["mean"], cell["score"]["ci95"], KINDS[place % len(KINDS)])
        for place, cell in enumerate(found["cells"])
        if cell["score"]["mean"] is not None
    ]
    baseline = found["baseline"]
    return {
        "title": "Time against score",
        "chart": time_chart(f"{found['metric']} over seconds a run", points, found["metric"].replace("_", " ")),
        "legend": [],
        "note": "Time of a run from start to end, the median over seeds, on a logarithmic axis."
        + (f" {baseline['what'].capitalize()} would score {baseline['score']:.3g}." if baseline else ""),
    }
