"""The model card's pictures: how training went, and which classes are taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.publish.drawing import FAINT, INK, Sheet

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace

CURVE, CONFUSION = "learning_curve.png", "confusion_matrix.png"
FOLDER = "pictures"
_BLUE, _ORANGE, _GREEN = (38, 102, 207), (214, 106, 20), (30, 132, 73)
_LAST_LATIN = 0x24F
_MOST_CLASSES = 60  # beyond these the squares are too small to see

Curve = list[tuple[float, float]]


def card_pictures(
    labels: LabelSpace, history: list[dict[str, Any]], metric: str | None, folder: Path
) -> dict[str, bytes]:
    """The pictures of a run as PNG, by their names in `pictures/`; none of what there is nothing to draw for.

    Args:
        labels: what the model answers.
        history: the Trainer's log.
        metric: the validation metric that chose the checkpoint.
        folder: of the run, with its predictions.parquet.
    """
    found: dict[str, bytes] = {}
    if (curve := learning_curve(history, metric)) is not None:
        found[CURVE] = curve
    if labels.problem_type == "single_label_classification" and labels.num_labels <= _MOST_CLASSES:
        counts = _confusions(labels.names, folder / "predictions.parquet")
        if counts is not None:
            found[CONFUSION] = confusion_matrix(counts, labels.names)
    return found


def learning_curve(history: list[dict[str, Any]], metric: str | None) -> bytes | None:
    """Loss and the metric by epoch; None where fewer than two points are known."""
    train, validation = _series(history, "loss"), _series(history, "eval_loss")
    if len(train) + len(validation) < 2:
        return None
    scores = _series(history, f"eval_{metric}") if metric and metric != "loss" else []
    panels = 2 if scores else 1
    sheet = Sheet(400 * panels + 20, 300)
    _panel(sheet, 0, "loss", [("training", train, _BLUE), ("validation", validation, _ORANGE)])
    if scores:
        _panel(sheet, 400, f"validation {metric}", [("", scores, _GREEN)])
    return sheet.png()


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> bytes:
    """A square for each pair of classes, darker for a larger share of the true class.

    Args:
        counts: (C, C) of true class by predicted class.
        names: of the C classes.
    """
    total = len(names)
    cell = max(9, min(46, 640 // total))
    shown = [_short(name, place) for place, name in enumerate(names)]
    probe = Sheet(1, 1)
    margin = max((probe.width_of(name, 12) for name in shown), default=0) + 34
    side = cell * total
    sheet = Sheet(round(margin + side + 20), round(margin + side + 20))
    sheet.text(margin + side / 2, 6, "predicted", size=12, anchor="ma")
    sheet.text(4, margin - 18, "true", size=12)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row in range(total):
        if cell >= 11:
            sheet.text(margin - 6, margin + (row + 0.5) * cell, shown[row], size=12, anchor="rm")
            length = sheet.width_of(shown[row], 12)
            sheet.turned_text(margin + (row + 0.5) * cell, margin - 8 - length, shown[row], 12)
        for column in range(total):
            share = float(shares[row, column])
            tone = _BLUE if row == column else _ORANGE
            mixed = tuple(round(250 + (part - 250) * share**0.6) for part in tone)
            x, y = margin + column * cell, margin + row * cell
            sheet.box(x, y, cell - 1, cell - 1, (mixed[0], mixed[1], mixed[2]))
            if counts[row, column] and cell >= 22:
                ink = (255, 255, 255) if share > 0.5 else INK
                size = 12 if cell >= 34 else 9
                sheet.text(x + cell / 2, y + cell / 2, f"{counts[row, column]}", size=size, color=ink, anchor="mm")
    return sheet.png()


def _confusions(names: Sequence[str], predictions: Path) -> np.ndarray | None:
    if not predictions.is_file():
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(predictions, columns=["label", "prediction"])
    index = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for label, prediction in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True):
        if label in index and prediction in index:
            counts[index[label], index[prediction]] += 1
    return counts if counts.sum() else None


def _series(history: list[dict[str, Any]], key: str) -> Curve:
    points = [
        (float(entry["epoch"]), float(entry[key]))
        for entry in history
        if key in entry and entry.get("epoch") is not None
    ]
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _panel(sheet: Sheet, left: float, title: str, series: list[tuple[str, Curve, tuple[int, int, int]]]) -> None:
    """Axes with four lines across, and the curves in them."""
    known = [curve for _, curve, _ in series if curve]
    points = [point for curve in known for point in curve]
    low, high = min(y for _, y in points), max(y for _, y in points)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    first, last = 0.0, max(x for x, _ in points) or 1.0
    x0, y0, width, height = left + 62, 40.0, 320.0, 200.0
    sheet.text(x0, 12, title, size=15)
    for step in range(5):
        y = y0 + height * step / 4
        sheet.line([(x0, y), (x0 + width, y)], color=FAINT)
        sheet.text(x0 - 8, y, f"{high - (high - low) * step / 4:.4g}", size=11, anchor="rm")
    for share in (0, 0.5, 1):
        sheet.text(x0 + width * share, y0 + height + 8, f"{last * share:.3g}", size=11, anchor="ma")
    sheet.text(x0 + width / 2, y0 + height + 28, "epoch", size=12, anchor="ma")
    legend = x0 + width
    for name, curve, color in series:
        if not curve:
            continue
        placed = [
            (x0 + width * (x - first) / (last - first), y0 + height * (high - y) / (high - low)) for x, y in curve
        ]
        sheet.line(placed, color=color, width=2)
        if len(placed) <= 40:
            for x, y in placed:
                sheet.dot(x, y, color)
        if name:
            sheet.text(legend, 14, name, size=12, color=color, anchor="ra")
            legend -= sheet.width_of(name, 12) + 14


def _short(name: str, place: int) -> str:
    """A name that fits, in one line; the class's number where Pillow's own font has not the letters."""
    name = " ".join(name.split())
    if any(ord(letter) > _LAST_LATIN for letter in name):
        return f"#{place}"
    return name if len(name) <= 18 else f"{name[:17]}."
