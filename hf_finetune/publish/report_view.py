"""A run as the template takes it: read from its folder, no model and no data needed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.publish.report_answers import TaskAnswers, read_answers
from hf_finetune.publish.report_curves import curves_of, tried
from hf_finetune.publish.report_data import read_data
from hf_finetune.publish.report_tasks import task_section
from hf_finetune.publish.report_words import duration, scores_of, whiskers

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

_LATER = "report.json is missing: this run was made before reports were kept, so that curves and samples are not shown."


@dataclass
class Material:
    """A run's files, read.

    Args:
        folder: output_dir.
        name: of the folder.
        recipe: of the run.
        metrics: metrics.json.
        data: report.json and about.json; empty without the first.
        answers: of each task, where there are predictions.
    """

    folder: Path
    name: str
    recipe: Recipe
    metrics: dict[str, dict[str, Any]]
    data: dict[str, Any]
    answers: list[TaskAnswers]


def read_material(folder: Path) -> Material:
    """The files of a finished run."""
    from hf_finetune.recipes import load_recipe

    data = read_data(folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    predictions = folder / "predictions.parquet"
    answers = read_answers(predictions, data["tasks"]) if data and predictions.is_file() else []
    recipe = load_recipe(str(folder / "recipe.yaml"))
    return Material(folder, folder.resolve().name, recipe, metrics, data, answers)


def view_of(run: Material) -> dict[str, Any]:
    """What the template needs of one run."""
    split = "test" if "test" in run.metrics else "validation"
    scores, train = scores_of(run.metrics[split]), run.metrics.get("train", {})
    data = run.data
    metrics = curve_metrics(run)
    figures = curves_of(data.get("history", ()), metrics, train.get("best_step"))
    fit = tried(train)
    return {
        "name": run.name,
        "title": f"{run.recipe.model.checkpoint} on {source_of(run.recipe)}",
        "facts": _facts(run),
        "split": split,
        "samples": run.metrics[split].get("samples", 0),
        "headline": headline(run, scores),
        "scores": scores,
        "seeds": _over_seeds(run, [score["name"] for score in headline(run, scores)]),
        "figures": [*figures, *([fit] if fit else [])],
        "tasks": _tasks(run),
        "strategy": strategy_rows(data.get("strategy", "")),
        "time": time_of(train),
        "training": _training(train),
        "data": _data(data),
        "recipe": run.recipe.to_yaml().strip(),
        "command": f"hf-finetune train recipe={shlex.quote(str(run.name))}/recipe.yaml output_dir=again",
        "versions": data.get("versions", {}),
        "machine": data.get("machine", ""),
        "made": data.get("made", "")[:16].replace("T", " "),
        "missing": "" if data else _LATER,
    }


def _over_seeds(run: Material, names: Sequence[str]) -> list[dict[str, Any]]:
    """The metrics of the headline, seed by seed, and their means with intervals over seeds and rows."""
    section: dict[str, Any] = run.metrics.get("seeds", {})
    found = []
    for name in names:
        told = section.get("metrics", {}).get(name, {"mean": None})
        if told["mean"] is None or len(section["seeds"]) < 2:
            continue
        parts = [{"label": f"seed {seed}", "samples": section["samples"], "score": value, "ci95": None}
                 for seed, value in zip(section["seeds"], told["values"], strict=True)]  # fmt: skip
        mean = {"label": "mean", "samples": section["samples"], "score": told["mean"], "ci95": told["ci95"]}
        found.append(whiskers({"name": f"Over {len(parts)} seeds", "metric": name, "parts": [mean, *parts]}))
    return found


def headline(run: Material, scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The score of the run; of several tasks the first of each."""
    if not run.recipe.tasks:
        best = run.recipe.evaluation.best
        chosen = next((score for score in scores if score["name"] == best), scores[0] if scores else None)
        return [chosen] if chosen else []
    firsts = [next((s for s in scores if s["name"].startswith(f"{name}_")), None) for name in run.recipe.tasks]
    return [score for score in firsts if score]


def curve_metrics(run: Material) -> list[str]:
    """The validation metrics that are drawn."""
    split = run.metrics.get("test") or run.metrics["validation"]
    return [score["name"] for score in headline(run, scores_of(split))]


def source_of(recipe: Recipe) -> str:
    """The data set in a few words."""
    dataset = recipe.data.dataset
    if isinstance(dataset, str):
        return "data given in memory" if dataset == "memory:" else dataset
    return ", ".join(dataset) if not isinstance(dataset, dict) else ", ".join(map(str, dataset))


def strategy_rows(table: str) -> dict[str, Any]:
    """The strategy's table as cells, and the lines under it."""
    lines = table.strip().splitlines()
    rule = next((place for place, line in enumerate(lines) if line and set(line) == {"-"}), None)
    if rule is None:
        return {"header": [], "rows": [], "notes": lines}
    header = re.split(r"\s{2,}", lines[0].strip())
    rows: list[list[str]] = []
    notes: list[str] = []
    for line in lines[rule + 1 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) == len(header):
            rows.append(cells)
        else:
            notes.append(line)
    return {"header": header, "rows": rows, "notes": notes}


def time_of(train: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds and shares of the phases of training, the longest first, and of what came around it."""
    phases = dict(train.get("time") or {})
    total = train.get("total_seconds") or 0.0
    around = total - sum(phases.values())
    if phases and around > 0:
        phases["before and after training"] = around
    whole = sum(phases.values()) or 1.0
    shown = sorted(phases.items(), key=lambda pair: -pair[1])
    return [{"name": name, "seconds": s, "share": s / whole} for name, s in shown if s / whole >= 0.002]


def _tasks(run: Material) -> list[dict[str, Any]]:
    counts = run.data.get("data", {}).get("labels", [])
    found = []
    for place, answers in enumerate(run.answers):
        section = task_section(answers, counts[place] if place < len(counts) else {})
        slices: Sequence[Any] = run.data.get("slices", [])
        gallery: Sequence[Any] = run.data.get("gallery", [])
        section["slices"] = [whiskers(one) for one in slices[place]] if place < len(slices) else []
        section["gallery"] = gallery[place] if place < len(gallery) else None
        section["scores"] = [
            score | {"label": score["name"].removeprefix(f"{answers.name}_").replace("_", " ")}
            for score in scores_of(run.metrics["test"])
            if not answers.name or score["name"].startswith(f"{answers.name}_")
        ]
        found.append(section)
    return found


def _facts(run: Material) -> list[str]:
    parameters = run.data.get("parameters")
    train = run.metrics.get("train", {})
    seconds = train.get("total_seconds")
    found = [f"strategy {run.recipe.strategy.kind}"]
    found += [f"{parameters / 1e6:.1f} M parameters"] if parameters else []
    found += [f"{train['epochs']:.3g} epochs"] if isinstance(train.get("epochs"), (int, float)) else []
    found += [duration(seconds)] if seconds else []
    return [*found, f"seed {run.recipe.seed}"]


def _training(train: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"steps": "steps", "epochs": "epochs", "samples_per_second": "samples a second", "processes": "processes",
             "seconds": "seconds of training", "total_seconds": "seconds in all", "average": "weights",
             "classifier": "classifier"}  # fmt: skip
    found = []
    for key, label in names.items():
        value = train.get(key)
        if value is not None:
            found.append((label, f"{value:,.4g}" if isinstance(value, float) else str(value)))
    return found


def _data(data: dict[str, Any]) -> dict[str, Any]:
    kept = data.get("data", {})
    tasks = data.get("tasks", [])
    classes = []
    for task, labels in zip(tasks, kept.get("labels", []), strict=False):
        counts = labels.get("counts")
        if counts:
            most = max(counts) or 1
            pairs = sorted(zip(task["names"], counts, strict=True), key=lambda pair: -pair[1])
            bars = [{"name": n, "count": c, "width": 100 * c / most} for n, c in pairs[:24]]
            classes.append({"name": task["name"], "bars": bars, "more": max(0, len(pairs) - 24)})
        elif "mean" in labels:
            spread = zip(task["names"], labels["least"], labels["mean"], labels["greatest"], strict=True)
            classes.append({"name": task["name"], "spread": [[n, *map(float, v)] for n, *v in spread]})
    return {
        "rows": kept.get("rows", {}),
        "classes": classes,
        "skipped": kept.get("skipped", 0),
        "cleaned": kept.get("cleaned", 0),
        "warnings": kept.get("warnings", []),
    }
