"""The baseline of every comparison: a model that has looked at the training labels and at no input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.evaluation.metrics import compute_metrics
from hf_finetune.publish.report_answers import MULTI, SINGLE, TaskAnswers
from hf_finetune.publish.report_data import kept_data
from hf_finetune.publish.seed_scores import task_of

_SURE = 30.0  # a logit


def constant_answer(folder: Path, answers: Sequence[TaskAnswers], metric: str) -> dict[str, Any] | None:
    """What a metric would be if every test row got the same answer.

    Of classes that is the most frequent one of the training rows, of several labels those that more than half of the
    rows have, of numbers the mean.

    Args:
        folder: of a finished run, whose report.json counts the training labels.
        answers: of that run.
        metric: of metrics.json.

    Returns:
        `what` in words and `score`; None where the metric has no value for it or the counts are not kept.
    """
    found = task_of(answers, metric)
    counts = kept_data(folder).get("data", {}).get("labels", [])
    if found is None or len(counts) != len(answers):
        return None
    task, own = found
    told = counts[[one.name for one in answers].index(task.name)]
    said, outputs = _answer(task, told)
    value = compute_metrics(np.tile(outputs, (len(task), 1)), task.truth, task.problem, [own])[own]  # type: ignore[arg-type]
    return {"what": f"always {said}", "score": value} if np.isfinite(value) else None


def _answer(task: TaskAnswers, told: dict[str, Any]) -> tuple[str, np.ndarray]:
    if task.problem == SINGLE:
        most = int(np.argmax(told["counts"]))
        outputs = np.zeros(len(task.names))
        outputs[most] = _SURE
        return task.names[most], outputs
    if task.problem == MULTI:
        usual = np.asarray(told["counts"]) > told["rows"] / 2
        said = ", ".join(name for name, each in zip(task.names, usual, strict=True) if each) or "no label"
        return said, np.where(usual, _SURE, -_SURE)
    return "the mean of the training rows", np.asarray(told["mean"], dtype=float)
