"""Runs that differ in their seed alone: their scores together, for metrics.json and the words at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.evaluation.external import PREFIX
from hf_finetune.evaluation.metrics import SHARES, bounds, fit_shapes, statistics_of
from hf_finetune.evaluation.over_seeds import resampled, spread
from hf_finetune.publish.report_answers import TaskAnswers, read_answers
from hf_finetune.publish.report_data import kept_data

METHOD = (
    "mean over seeds; 95% interval by Student's t over seeds and bootstrapped test rows, every seed on the same rows; "
    "of shares such as accuracy Wilson's, of so many samples as tell as much (hf_finetune.evaluation.over_seeds)"
)
_NOT_SCORES = ("loss", "samples")


def split_of(metrics: Mapping[str, Any]) -> str:
    """The split whose scores are told: test, else validation."""
    return "test" if "test" in metrics else "validation"


def names_of(scores: Mapping[str, Any]) -> list[str]:
    """The metrics of a split of metrics.json."""
    return [name for name in scores if name not in _NOT_SCORES and not name.endswith(("_ci95", "_samples"))]


def answers_in(folder: Path) -> list[TaskAnswers]:
    """The test answers of a finished run, by task; none where it kept none."""
    data, predictions = kept_data(folder), folder / "predictions.parquet"
    return read_answers(predictions, data["tasks"]) if data and predictions.is_file() else []


def on_the_same_rows(runs: Sequence[Sequence[TaskAnswers]]) -> bool:
    """Whether runs have answered the same test rows with the same labels, so that they can be compared row by row."""
    first = runs[0] if runs else ()
    return bool(first) and all(
        len(run) == len(first)
        and all(
            one.problem == other.problem
            and one.names == other.names
            and np.array_equal(one.ids, other.ids)
            and np.array_equal(one.truth, other.truth)
            for one, other in zip(run, first, strict=True)
        )
        for run in runs[1:]
    )


def task_of(answers: Sequence[TaskAnswers], name: str) -> tuple[TaskAnswers, str] | None:
    """The task that a metric of metrics.json tells of, and the metric's own name; None where it tells of several."""
    if name.startswith(PREFIX):  # its author's code is not run again
        return None
    for one in sorted(answers, key=lambda one: -len(one.name)):
        if not one.name or name.startswith(f"{one.name}_"):
            return one, name.removeprefix(f"{one.name}_") if one.name else name
    return None


def tasks_of(folder: Path) -> list[tuple[str, str]]:
    """Name, empty where there is one, and problem of each task of a finished run."""
    return [(task["name"], task["problem"]) for task in kept_data(folder).get("tasks", ())]


def is_share_of_rows(tasks: Sequence[tuple[str, str]], name: str) -> bool:
    """Whether a metric of metrics.json is a share of the samples, each of which is right or not.

    Args:
        tasks: from `tasks_of`.
        name: of the metric.
    """
    for task, problem in sorted(tasks, key=lambda one: -len(one[0])):
        if not task or name.startswith(f"{task}_"):
            return (name.removeprefix(f"{task}_") if task else name) in SHARES[problem]
    return False


def rows_of(
    runs: Sequence[Sequence[TaskAnswers]], names: Sequence[str], resamples: int, seed: int = 0
) -> dict[str, tuple[np.ndarray, int]]:
    """Of each metric the values (S, B) of the runs on the same resamples of the test rows, and the number of rows.

    Args:
        runs: of each its answers, on the same rows.
        names: of metrics.json; those that cannot be resampled are left out.
        resamples: B.
        seed: of the resamples.
    """
    by_task: dict[str, list[str]] = {}
    for name in names:
        found = task_of(runs[0], name)
        if found is not None and resamples:
            by_task.setdefault(found[0].name, []).append(name)
    told: dict[str, tuple[np.ndarray, int]] = {}
    for task, own in by_task.items():
        parts = [next(one for one in run if one.name == task) for run in runs]
        metrics = [name.removeprefix(f"{task}_") if task else name for name in own]
        statistics = [
            statistics_of(*fit_shapes(one.logits, one.truth, one.problem), one.problem, metrics)  # type: ignore[arg-type]
            for one in parts
        ]
        for name, metric in zip(own, metrics, strict=True):
            values = resampled([one[metric] for one in statistics], len(parts[0]), resamples, seed)
            told[name] = values, len(parts[0])
    return told


def seeds_section(
    runs: Mapping[int, tuple[Path, Mapping[str, Any]]], failed: Mapping[int, str], resamples: int, split: str = ""
) -> dict[str, Any]:
    """What metrics.json tells of several seeds.

    Args:
        runs: by seed, the folder of each finished run and its metrics.json.
        failed: by seed, why others have not finished.
        resamples: bootstrap resamples of the test rows; 0 for no intervals.
        split: whose scores; the test split's, else validation's if left out.

    Returns:
        `seeds`, `split`, `samples`, and `metrics`: of each metric its `values` seed by seed, `mean`, `std` (None of one
        seed) and `ci95` (None where it cannot be told), `method`; `failed` where some have.
    """
    every = [metrics for _, metrics in runs.values()]
    split = split or split_of(every[0])
    answers = [answers_in(folder) for folder, _ in runs.values()] if split == "test" and resamples else []
    names = names_of(every[0][split])
    rows = rows_of(answers, names, resamples, min(runs)) if on_the_same_rows(answers) else {}
    tasks = tasks_of(next(iter(runs.values()))[0])
    samples = every[0][split].get("samples", 0)
    # Of several tasks on validation it is not told here how many samples each has.
    known = samples if split == "validation" and len(tasks) == 1 and resamples else 0
    found: dict[str, Any] = {}
    for name in names:
        values = [metrics[split].get(name) for metrics in every]
        drawn = rows.get(name) or (None, known)
        found[name] = {"values": values, **_told(name, values, *drawn, share=is_share_of_rows(tasks, name))}
    return {
        "seeds": list(runs),
        "split": split,
        "samples": samples,
        "metrics": found,
        "method": METHOD,
        **({"failed": {str(seed): reason for seed, reason in failed.items()}} if failed else {}),
    }


def _told(
    name: str, values: Sequence[float | None], rows: np.ndarray | None, samples: int, *, share: bool
) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"mean": None, "std": None, "ci95": None}
    mean = sum(known) / len(known)
    at_most = mean * (1 - mean) / samples if share and samples else None  # what one seed's has, where rows are unknown
    told = spread(known, rows, samples, of_rows=at_most, share=share)
    # Without the chance of the rows an interval would leave out half of it: seeds that agree would have none at all.
    sure = rows is not None or (share and samples > 0)
    return {"mean": told.mean, "std": told.std, "ci95": told.interval(*_bounds(name)) if sure else None}


def _bounds(name: str) -> tuple[float, float]:
    """What the metric can be; of several tasks by its own name behind the task's."""
    from hf_finetune.evaluation.metrics import METRICS

    known = {metric for table in METRICS.values() for metric in table}
    own = next((metric for metric in sorted(known, key=len, reverse=True) if name.endswith(f"_{metric}")), name)
    return bounds(name if name in known else own)


def seeds_in_words(section: Mapping[str, Any]) -> str:
    """The section as lines: each metric's mean with its interval, and how far the seeds lie apart."""
    seeds = ", ".join(map(str, section["seeds"]))
    lines = [f"{section['split']} over {len(section['seeds'])} seeds ({seeds}; {section['samples']:,} samples)"]
    for name, told in section["metrics"].items():
        if told["mean"] is None:
            lines.append(f"  {name:<24}undefined")
            continue
        interval = told["ci95"]
        between = f"  95% between {interval[0]:.4f} and {interval[1]:.4f}" if interval else ""
        apart = "" if told["std"] is None else f"  (seeds: std {told['std']:.4f})"
        lines.append(f"  {name:<24}{told['mean']:.4f}{between}{apart}")
    lines += [f"  seed {seed} failed: {reason.splitlines()[0]}" for seed, reason in section.get("failed", {}).items()]
    return "\n".join(lines)
