"""What the page says of one task: matrix, table of classes, calibration; of numbers predicted against true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hf_finetune.publish import charts
from hf_finetune.publish.report_answers import MULTI, SINGLE, TaskAnswers

_MATRIX_OF = 30  # classes; of more the most confused pairs are listed
_PAIRS = 20
_BINS = 15  # as the metric ece has
_POINTS = 1_200
_BARS = 24
_ROWS = 200  # of the table of classes; of more the worst are shown


def task_section(answers: TaskAnswers, train: dict[str, Any]) -> dict[str, Any]:
    """What the template needs of a task.

    Args:
        answers: on the test split.
        train: `counts` of training rows by class, where they are known.
    """
    section: dict[str, Any] = {"name": answers.name, "problem": answers.problem, "samples": len(answers)}
    if not len(answers):
        return section
    if answers.problem == SINGLE:
        decided = answers.decided
        return section | {
            "matrix": _matrix(answers.names, answers.truth, decided) if len(answers.names) <= _MATRIX_OF else None,
            "confused": _confused(answers.names, answers.truth, decided),
            "classes": _classes(answers.names, answers.truth, decided, train.get("counts")),
            "reliability": _reliability(answers.scores.max(axis=1), decided == answers.truth, "the answers are right"),
        }
    if answers.problem == MULTI:
        flat = answers.scores.ravel()
        return section | {
            "classes": _labels(answers, train.get("counts")),
            "reliability": _reliability(flat, answers.truth.ravel() > 0.5, "the label is set"),
        }
    return section | {"targets": [_target(answers, place) for place in range(answers.scores.shape[1])]}


def _matrix(names: tuple[str, ...], truth: np.ndarray, decided: np.ndarray) -> dict[str, Any]:
    """Rows of the matrix: every cell its count, and its share of the row for the colour."""
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (truth, decided), 1)
    totals = np.maximum(counts.sum(axis=1), 1)
    rows = []
    for true, name in enumerate(names):
        cells = [
            {"count": int(counts[true, said]), "share": float(counts[true, said] / totals[true]), "right": true == said,
             "said": f"{name} taken for {names[said]}" if true != said else f"{name} recognised"}
            for said in range(len(names))
        ]  # fmt: skip
        rows.append({"name": name, "cells": cells})
    return {"names": list(names), "rows": rows}


def _confused(names: tuple[str, ...], truth: np.ndarray, decided: np.ndarray) -> list[dict[str, Any]]:
    """From the answers that are wrong alone: a matrix of tens of thousands of classes would fill the memory."""
    wrong = truth != decided
    pairs, counts = np.unique(truth[wrong] * len(names) + decided[wrong], return_counts=True)
    totals = np.bincount(truth, minlength=len(names))
    found = []
    for place in np.argsort(-counts, kind="stable")[:_PAIRS]:
        true, said = divmod(int(pairs[place]), len(names))
        count = int(counts[place])
        found.append({"true": names[true], "said": names[said], "count": count, "share": count / int(totals[true])})
    return found


def _classes(names: tuple[str, ...], truth: np.ndarray, decided: np.ndarray, train: list[int] | None) -> dict[str, Any]:
    hits, true, said = (
        np.bincount(places, minlength=len(names)) for places in (truth[truth == decided], truth, decided)
    )
    rows = []
    for place, name in enumerate(names):
        precision = _ratio(hits[place], said[place])
        recall = _ratio(hits[place], true[place])
        f1 = _ratio(2 * hits[place], true[place] + said[place])
        rows.append([name, *_train_count(train, place), int(true[place]), precision, recall, f1])
    return _table(_columns(train, "class", ["precision", "recall", "F1"]), rows)


def _labels(answers: TaskAnswers, train: list[int] | None) -> dict[str, Any]:
    from sklearn.metrics import average_precision_score

    true, said = answers.truth > 0.5, answers.decided > 0
    rows = []
    for place, name in enumerate(answers.names):
        hits, own, called = (
            int((true[:, place] & said[:, place]).sum()), int(true[:, place].sum()), int(said[:, place].sum()),
        )  # fmt: skip
        average = float(average_precision_score(true[:, place], answers.scores[:, place])) if own else None
        numbers = [_ratio(hits, called), _ratio(hits, own), _ratio(2 * hits, own + called), average]
        rows.append([name, *_train_count(train, place), own, *numbers])
    return _table(_columns(train, "label", ["precision", "recall", "F1", "average precision"]), rows)


def _table(columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    """The table of classes: `all` of them for a comparison of runs, and `rows`, those that are shown."""
    f1 = columns.index("F1")
    shown, note = worst(rows, lambda row: row[f1])
    return {"columns": columns, "rows": shown, "all": rows, "note": note}


def worst(rows: list[list[Any]], score: Callable[[list[Any]], float | None]) -> tuple[list[list[Any]], str]:
    """Of many rows those with the lowest scores, in the order in which they stood, and a sentence that says so."""
    if len(rows) <= _ROWS:
        return rows, ""
    scores = [score(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: 2.0 if scores[place] is None else float(scores[place] or 0.0))
    return [rows[place] for place in sorted(order[:_ROWS])], f"The {_ROWS} with the lowest F1 of {len(rows):,}."


def _train_count(train: list[int] | None, place: int) -> list[int]:
    return [] if train is None else [train[place]]


def _columns(train: list[int] | None, what: str, measures: list[str]) -> list[str]:
    return [what, *([] if train is None else ["train rows"]), "test rows", *measures]


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _reliability(sure: np.ndarray, right: np.ndarray, what: str) -> dict[str, Any]:
    """The diagram, and its summary: bins of equal width (lower, upper], Guo et al. 2017."""
    sure = sure.astype(np.float64)
    place = np.clip(np.ceil(sure * _BINS).astype(int) - 1, 0, _BINS - 1)
    bins, gap = [], 0.0
    for number in range(_BINS):
        inside = place == number
        count = int(inside.sum())
        share = float(right[inside].mean()) if count else 0.0
        bins.append(((number + 1) / _BINS, share, count))
        gap += abs(float(right[inside].sum()) - float(sure[inside].sum()))
    mean, hits = float(sure.mean()), float(right.mean())
    title = f"Reliability: how often {what}, over the probability that was given; {len(sure):,} answers in {_BINS} bins"
    return {
        "chart": charts.reliability(title, bins, len(sure)),
        "ece": gap / len(sure),
        "confidence": mean,
        "share": hits,
        "what": what,
    }


def _target(answers: TaskAnswers, place: int) -> dict[str, Any]:
    truth, said = answers.truth[:, place], answers.scores[:, place].astype(np.float64)
    miss = said - truth
    shown = np.arange(len(truth))
    if len(shown) > _POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(shown), _POINTS, replace=False))
    name = answers.names[place]
    counts, edges = np.histogram(miss, bins=min(_BARS, max(6, int(np.sqrt(len(miss))))))
    return {
        "name": name,
        "shown": len(shown),
        "scatter": charts.scatter(
            f"{name}: predicted against true",
            list(zip(truth[shown].tolist(), said[shown].tolist(), strict=True)),
            "true",
            "predicted ↑",
        ),
        "residuals": charts.histogram(
            f"{name}: residuals, predicted less true", counts.tolist(), edges.tolist(), "predicted - true"
        ),
        "bias": float(miss.mean()),
        "spread": float(miss.std()),
        "middle": float(np.median(np.abs(miss))),
        "worst": float(np.abs(miss).max()),
    }
