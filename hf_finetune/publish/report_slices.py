"""Scores of parts of the test split: by length, by size, by brightness, by any column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hf_finetune.evaluation import with_intervals
from hf_finetune.evaluation.attribution import Deadline
from hf_finetune.publish.report_answers import MULTI, SINGLE, TaskAnswers

METRIC = {SINGLE: "accuracy", MULTI: "micro_f1"}  # regression: mae
_RESAMPLES = 200
_PARTS = 5  # a number is cut into so many parts of like size
_MOST_VALUES = 12  # of a column of words; the rarer are taken together
_SIZES_OF = 2_000  # images whose headers are read
_BRIGHTNESS_OF = 200  # images that are decoded for it
_SECONDS = 20.0  # for all that; photographs of many megapixels on a slow disk take no more either
_SMALL = (64, 64)  # JPEGs are decoded no larger than needed for it
_FEWEST = 8  # rows of a part
_ALIKE = 0.02  # a number that varies less than this says nothing


def properties_of(test: Any) -> dict[str, list[Any]]:
    """What every test row says of itself, by name: words of a text; pixels and brightness of an image.

    NaN where a row was not looked at: of many images a sample is, and the name then says of how many.
    """
    if "image" in test.column_names:
        return _of_images(test)
    words = np.array([len(text.split()) for text in test["text"][:]])
    if "text_pair" in test.column_names:
        words = words + np.array([len(text.split()) for text in test["text_pair"][:]])
    return {"words": words.tolist()}


def _of_images(test: Any) -> dict[str, list[Any]]:
    from hf_finetune.data.images import open_image

    deadline = Deadline(_SECONDS)
    sides, light = np.full(len(test), np.nan), np.full(len(test), np.nan)
    # First those that are decoded, so that time that runs out leaves both something, each spread over the split.
    read = _spread(len(test), _SIZES_OF)
    decoded = [read[place] for place in _spread(len(read), _BRIGHTNESS_OF)]
    places = [*decoded, *sorted(set(read) - set(decoded))]
    for number, (row, value) in enumerate(zip(places, test.select(places)["image"], strict=True)):
        if deadline.passed:
            break
        try:
            sides[row] = min(open_image(value).size)
        except (OSError, AttributeError, KeyError):  # arrays of many bands: not images that Pillow opens
            return {}
        if number < len(decoded):
            light[row] = _brightness(value)
    found = {"shorter side, pixels": sides, "brightness, %": light}
    counts = {name: int((~np.isnan(values)).sum()) for name, values in found.items()}
    return {
        name if counts[name] == len(test) else f"{name} (of {counts[name]:,} of the images)": values.tolist()
        for name, values in found.items()
    }


def _spread(total: int, most: int) -> list[int]:
    """At most so many places, all over the split."""
    return sorted({int(place) for place in np.linspace(0, total - 1, min(total, most))})


def _brightness(value: Any) -> float:
    """Mean grey of an image in per cent; NaN of one that cannot be decoded."""
    from PIL import Image

    from hf_finetune.data import decode_image
    from hf_finetune.data.images import open_image

    try:
        image = open_image(value)
        if not isinstance(value, Image.Image):  # which is not ours to make small
            image.draft("RGB", _SMALL)
        small = decode_image(image).convert("L").resize((16, 16))
    except OSError:
        return math.nan
    return float(np.asarray(small).mean() / 2.55)


def slices_of(answers: TaskAnswers, properties: dict[str, list[Any]], seed: int) -> list[dict[str, Any]]:
    """Each property's parts with score and interval.

    Args:
        answers: of one task.
        properties: name -> a value for every row of the test split: None where it has none, NaN where nobody looked.
        seed: of the resamples.

    Returns:
        {"name", "metric", "parts": [{"label", "samples", "score", "ci95"}]}; a property with one part alone is left
        out.
    """
    metric = METRIC.get(answers.problem, "mae")
    found = []
    for name, values in properties.items():
        own = [values[row] for row in answers.rows]
        known = np.array([not isinstance(value, float) or not math.isnan(value) for value in own], dtype=bool)
        seen = np.flatnonzero(known)
        parts = [
            {"label": label, "samples": len(places), **_score(answers.part(seen[places]), metric, seed)}
            for label, places in _parts_of([own[place] for place in seen])
        ]
        if len(parts) > 1:
            found.append({"name": name, "metric": metric, "parts": parts})
    return found


def _score(answers: TaskAnswers, metric: str, seed: int) -> dict[str, Any]:
    kind: Any = answers.problem
    scores = with_intervals(answers.logits, answers.truth, kind, [metric], resamples=_RESAMPLES, seed=seed)
    return {"score": scores[metric], "ci95": scores[f"{metric}_ci95"]}


def _parts_of(values: Sequence[Any]) -> list[tuple[str, np.ndarray]]:
    """Places of the rows of each part, in the order in which they are shown."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    given = sum(value is not None for value in values)
    if numbers and len(numbers) == given and len(set(numbers)) > _MOST_VALUES:
        return _quantiles(values)
    named = np.array(["no value" if value is None else str(value)[:60] for value in values], dtype=object)
    kinds, counts = np.unique(named.astype(str), return_counts=True)
    common = [str(kinds[place]) for place in np.argsort(-counts, kind="stable")[:_MOST_VALUES]]
    if numbers and len(numbers) == given:
        common.sort(key=lambda text: float(text) if text != "no value" else np.inf)
    parts = [(name, np.flatnonzero(named == name)) for name in common]
    if len(rest := np.flatnonzero(~np.isin(named.astype(str), common))):
        parts.append((f"{len(kinds) - len(common)} others", rest))
    return [(name, places) for name, places in parts if len(places) >= min(_FEWEST, len(values) // 2)]


def _quantiles(values: Sequence[Any]) -> list[tuple[str, np.ndarray]]:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    there = numbers[~np.isnan(numbers)]
    if np.ptp(there) <= _ALIKE * max(abs(float(there.max())), 1e-9):
        return []
    edges = np.unique(np.quantile(there, np.linspace(0, 1, _PARTS + 1)))
    whole = bool(np.all(there == np.rint(there)))
    parts = []
    for low, high in pairwise(edges):
        places = np.flatnonzero((numbers >= low) & ((numbers < high) | ((high == edges[-1]) & (numbers == high))))
        if not len(places):
            continue
        inside = numbers[places]
        ends = (inside.min(), inside.max()) if whole else (low, high)
        shown = [_short(float(end)) for end in ends]
        parts.append((shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}", places))
    return parts


def _short(number: float) -> str:
    return f"{number:.0f}" if number == round(number) or abs(number) >= 100 else f"{number:.3g}"
