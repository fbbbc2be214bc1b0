"""The test answers of each task of a run, as numbers: from a run that is ending, or from its predictions.parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.outputs import Rule, probabilities

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
_TINY = 1e-12


@dataclass(frozen=True)
class TaskAnswers:
    """One task's labels and answers on the test rows that have its label.

    Args:
        name: of the task; empty where a run has one.
        problem: transformers' word for the kind of answer.
        names: of the classes, labels or targets.
        rows: (N,) places in the test split.
        ids: (N,) numbers in the source split.
        truth: (N,) class numbers; (N, C) of 0 and 1; (N, T) numbers.
        scores: (N, C) probabilities; (N, T) numbers.
        outputs: where the task is among the model's outputs.
        rule: with thresholds, where several labels have their own.
    """

    name: str
    problem: str
    names: tuple[str, ...]
    rows: np.ndarray
    ids: np.ndarray
    truth: np.ndarray
    scores: np.ndarray
    outputs: slice = field(default_factory=lambda: slice(None))
    rule: Rule = field(default_factory=Rule)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def decided(self) -> np.ndarray:
        """(N,) class numbers; (N, C) of 0 and 1; (N, T) numbers."""
        if self.problem == SINGLE:
            return self.scores.argmax(axis=1)
        if self.problem == MULTI:
            return (self.scores > (self.rule.thresholds or 0.5)).astype(np.int64)
        return self.scores

    @property
    def logits(self) -> np.ndarray:
        """(N, C) that give these probabilities, as the metrics take them."""
        if self.problem == REGRESSION:
            return self.scores
        safe = np.clip(self.scores.astype(np.float64), _TINY, None)
        if self.problem == SINGLE:
            return np.log(safe)
        return self.rule.decisive(np.log(safe) - np.log(np.clip(1 - safe, _TINY, None)))

    def part(self, places: np.ndarray) -> TaskAnswers:
        """The same of some of the rows."""
        rows, ids, truth, scores = (a[places] for a in (self.rows, self.ids, self.truth, self.scores))
        return TaskAnswers(self.name, self.problem, self.names, rows, ids, truth, scores, self.outputs, self.rule)


def answers_of(test: Any, logits: np.ndarray, labels: LabelSpace, rule: Rule | None = None) -> list[TaskAnswers]:
    """Of a run that is ending: its test split, logits (N, C) divided by its temperature, labels, rule of answers."""
    ids, targets = np.asarray(test["id"][:]), test["label"][:]
    places = np.arange(len(ids))
    if not labels.tasks:
        truth = _truth(labels.problem_type, targets)
        scores = probabilities(np.ascontiguousarray(logits), labels.problem_type)
        one = TaskAnswers("", labels.problem_type, labels.names, places, ids, truth, scores, rule=rule or Rule())
        return [one]
    packed = np.asarray(targets, dtype=np.float64)
    found = []
    for part in labels.tasks:
        rows = np.flatnonzero(part.labelled(packed))
        kind = part.space.problem_type
        own = np.ascontiguousarray(logits[rows][:, part.outputs])
        truth = _truth(kind, part.of(packed[rows]))
        scores = probabilities(own, kind)
        found.append(TaskAnswers(part.name, kind, part.space.names, rows, ids[rows], truth, scores, part.outputs))
    return found


def read_answers(path: Path, tasks: Sequence[dict[str, Any]]) -> list[TaskAnswers]:
    """Of a finished run.

    Args:
        path: predictions.parquet.
        tasks: of each "name" (empty where there is one task) and "problem".
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    kept = json.loads(metadata.get(b"label_names", b"[]"))
    rule = Rule(thresholds=tuple(json.loads(metadata.get(b"thresholds", b"[]"))))
    ids = table["id"].to_numpy()
    found, start = [], 0
    for task in tasks:
        prefix = f"{task['name']}_" if task["name"] else ""
        names = tuple(kept[task["name"]] if task["name"] else kept)
        labels = table[f"{prefix}label"].to_pylist()
        rows = np.array([place for place, label in enumerate(labels) if label is not None], dtype=np.int64)
        column = "prediction" if task["problem"] == REGRESSION else "probabilities"
        scores = _matrix(table[f"{prefix}{column}"], len(names))
        if len(rows) < len(labels):
            labels, scores = [labels[row] for row in rows], scores[rows]
        truth = _encoded(labels, task["problem"], names)
        outputs = slice(start, start + len(names))
        start += len(names)
        found.append(TaskAnswers(task["name"], task["problem"], names, rows, ids[rows], truth, scores, outputs, rule))
    return found


def _matrix(column: Any, width: int) -> np.ndarray:
    """(N, width) of a column of numbers or of lists, as they are stored: never as Python's objects, of which there
    may be millions."""
    whole = column.combine_chunks()
    if hasattr(whole, "flatten") and whole.type.num_fields:
        whole = whole.flatten()
    return np.asarray(whole.to_numpy(zero_copy_only=False)).reshape(-1, width)


def _encoded(labels: list[Any], problem: str, names: tuple[str, ...]) -> np.ndarray:
    """What `TaskAnswers.truth` is, of labels as people read them."""
    if problem == REGRESSION:
        return _truth(problem, labels)
    index: dict[str, int] = {}
    for place, name in enumerate(names):
        index.setdefault(name, place)
    if problem == SINGLE:
        return np.array([index[label] for label in labels], dtype=np.int64)
    truth = np.zeros((len(labels), len(names)))
    for row, own in enumerate(labels):
        truth[row, [index[name] for name in own]] = 1.0
    return truth


def _truth(problem: str, targets: Any) -> np.ndarray:
    if problem == SINGLE:
        return np.asarray(targets, dtype=np.int64)
    return np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
