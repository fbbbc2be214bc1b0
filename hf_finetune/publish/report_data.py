"""report.json: what the page needs beside metrics.json, predictions.parquet, recipe.yaml and about.json.

Gathered once, while data, model and history are at hand; the page is made from it again and again, with none of them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_finetune.data.streamed import is_streamed
from hf_finetune.outputs import Rule
from hf_finetune.publish.about import read_about
from hf_finetune.publish.report_answers import MULTI, SINGLE, answers_of
from hf_finetune.publish.report_gallery import gallery_of
from hf_finetune.publish.report_slices import properties_of, slices_of

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace, TaskData
    from hf_finetune.recipes import Recipe

NAME = "report.json"
_SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


class Scored(Protocol):
    """Scores and test predictions of a run."""

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """`train`, `validation` and `test`."""

    @property
    def test_logits(self) -> np.ndarray | None:
        """(N, C) in the order of the test split; None without one."""


def gather(recipe: Recipe, task: TaskData, model: Any, processor: Any, report: Scored) -> dict[str, Any]:
    """What of a run that is ending about.json does not hold.

    Args:
        recipe: with revisions pinned.
        task: its data.
        model: trained; left as it was.
        processor: its image processor or tokenizer.
        report: scores and test logits.
    """
    found: dict[str, Any] = {
        "format": 1,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tasks": described(task.labels),
        "data": _summary(task),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if task.test is not None and report.test_logits is not None:
        found |= of_test(recipe, task.test, task.labels, report.test_logits, model, processor)
    return found


def of_test(
    recipe: Recipe, test: Any, labels: LabelSpace, logits: np.ndarray, model: Any, processor: Any
) -> dict[str, Any]:
    """What the test split shows: scores of its parts, and samples worth a look."""
    tasks = answers_of(test, logits, labels, Rule.of(model.config))
    properties = properties_of(test)
    sharded = any(os.environ.get(name) == "true" for name in _SHARDING)
    return {
        "slices": [slices_of(answers, properties, recipe.seed) for answers in tasks],
        "gallery": gallery_of(recipe, test, tasks, model, processor, sharded=sharded),
    }


def described(labels: LabelSpace) -> list[dict[str, Any]]:
    """Name and kind of each task, and the names of what it tells."""
    if not labels.tasks:
        return [{"name": "", "problem": labels.problem_type, "names": list(labels.names)}]
    return [{"name": p.name, "problem": p.space.problem_type, "names": list(p.space.names)} for p in labels.tasks]


def kept_data(folder: Path) -> dict[str, Any]:
    """What report.json holds; nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def read_data(folder: Path) -> dict[str, Any]:
    """What a run kept for its page, in report.json and about.json; nothing without the first."""
    kept, about = kept_data(folder), read_about(folder)
    if not kept:
        return {}
    found: dict[str, Any] = {key: about[key] for key in ("history", "versions", "machine") if key in about}
    found |= {"strategy": about["strategy_table"]} if "strategy_table" in about else {}
    counts = {key: about[key] for key in ("rows", "skipped", "cleaned") if key in about}
    # An older version kept it all in report.json.
    return {**found, **kept, "data": {**counts, **kept.get("data", {})}}


def _summary(task: TaskData) -> dict[str, Any]:
    if is_streamed(task.train):  # nobody has counted its labels
        return {"labels": [], "warnings": list(task.warnings), "fingerprint": task.fingerprint}
    targets = task.train["label"][:]
    parts = [(part.space, [t for row in targets if (t := part.target(row)) is not None]) for part in task.labels.tasks]
    spaces = parts or [(task.labels, targets)]
    return {
        "labels": [_counts(space, own) for space, own in spaces],
        "warnings": list(task.warnings),
        "fingerprint": task.fingerprint,
    }


def _counts(space: LabelSpace, targets: list[Any]) -> dict[str, Any]:
    """Training rows of each class or label; of numbers their spread."""
    if space.problem_type == SINGLE:
        counts = Counter(int(target) for target in targets)
        return {"counts": [counts[place] for place in range(space.num_labels)], "rows": len(targets)}
    values = np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
    if space.problem_type == MULTI:
        return {"counts": values.sum(axis=0).astype(int).tolist(), "rows": len(targets)}
    return {
        "rows": len(targets),
        "least": values.min(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "greatest": values.max(axis=0).tolist(),
    }
