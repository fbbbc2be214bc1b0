"""What the page says of one task: matrix, table of classes, calibration; of numbers predicted against true."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_finetune.publish import charts
from hf_finetune.publish.report_answers import MULTI, SINGLE, TaskAnswers

_MATRIX_OF = 30  # classes; of more the most confused pairs are listed
_PAIRS = 20
_BINS = 15  # as the metric ece has
_POINTS = 1_200
_BARS = 24


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
        counts = np.zeros((len(answers.names), len(answers.names)), dtype=np.int64)
        np.add.at(counts, (answers.truth, answers.decided), 1)
        hit = answers.decided == answers.truth
        return section | {
            "matrix": _matrix(answers.names, counts) if len(answers.names) <= _MATRIX_OF else None,
            "confused": _confused(answers.names, counts),
            "classes": _classes(answers.names, counts, train.get("counts")),
            "reliability": _reliability(answers.scores.max(axis=1), hit, "the answers are right"),
        }
    if answers.problem == MULTI:
        flat = answers.scores.ravel()
        return section | {
            "classes": _labels(answers, train.get("counts")),
            "reliability": _reliability(flat, answers.truth.ravel() > 0.5, "the label is set"),
        }
    return section | {"targets": [_target(answers, place) for place in range(answers.scores.shape[1])]}


def _matrix(names: tuple[str, ...], counts: np.ndarray) -> dict[str, Any]:
    """Rows of the matrix: every cell its count, and its share of the row for the colour."""
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


def _confused(names: tuple[str, ...], counts: np.ndarray) -> list[dict[str, Any]]:
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:_PAIRS]
    places = [divmod(int(place), len(names)) for place in order if off.flat[place] > 0]
    totals = counts.sum(axis=1)
    return [
        {"true": names[t], "said": names[s], "count": int(off[t, s]), "share": float(off[t, s] / totals[t])}
        for t, s in places
    ]


def _classes(names: tuple[str, ...], counts: np.ndarray, train: list[int] | None) -> dict[str, Any]:
    hits, true, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    rows = []
    for place, name in enumerate(names):
        precision = _ratio(hits[place], said[place])
        recall = _ratio(hits[place], true[place])
        f1 = _ratio(2 * hits[place], true[place] + said[place])
        rows.append([name, *_train_count(train, place), int(true[place]), precision, recall, f1])
    return {"columns": _columns(train, "class", ["precision", "recall", "F1"]), "rows": rows}


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
    return {"columns": _columns(train, "label", ["precision", "recall", "F1", "average precision"]), "rows": rows}


def _train_count(train: list[int] | None, place: int) -> list[int]:
    return [] if train is None else [train[place]]


def _columns(train: list[int] | None, what: str, measures: list[str]) -> list[str]:
    return [what, *([] if train is None else ["train rows"]), "test rows", *measures]


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _reliability(sure: np.ndarray, right: np.ndarray, what: str) -> dict[str, Any]:
    """The diagram, and its summary: bins of equal width (lower, upper], Guo et al. 2017."""
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
