"""Columns that tell the label: what the model could be right by, or what must never be an input."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Image, Value

from hf_finetune.advice.doctor_material import Material
from hf_finetune.advice.doctor_report import Section
from hf_finetune.data.columns import is_id

_FOLDS = 5
_FEWEST = 50  # rows below which a column may tell the label by chance
_PERFECT, _MUCH = 0.9, 0.5  # share of what the commonest label leaves open that a column tells


@dataclass(frozen=True)
class Clue:
    """Something known about every row besides what the model reads.

    Args:
        source: the column, or a property of the image or text.
        how: what of it.
        values: one a row; categories, or numbers with NaN.
        is_input: whether the model reads it together with its input.
    """

    source: str
    how: str
    values: Sequence[Any] | np.ndarray
    is_input: bool = False


def leaks(material: Material, limit: int) -> Section:
    """Columns of the train split, and properties of its inputs, from which the label can be predicted.

    Each alone is put to a cross-validated test: of categories, the commonest label of each in the other folds; of
    numbers, a small decision tree (one threshold after another, a few leaves a class). What is told is the share of the
    labels that the commonest label leaves open (for numbers R squared), so that 0 is nothing and 1 is all.

    Args:
        material: with one label a row; multi-label is not looked at.
        limit: rows that are looked at, at most.
    """
    section = Section("Columns that tell the label")
    if material.labels.problem_type == "multi_label_classification":
        section.lines.append("not looked at: for one label a row, and this is multi label classification")
        return section
    sample = material.sample(limit, only=material.train, labeled=True)
    rows = sample[0][1] if sample else np.empty(0, dtype=np.int64)
    targets = np.array([material.train.targets[row] for row in rows])
    if len(rows) < _FEWEST or targets.ndim != 1:
        section.lines.append(f"not looked at: needs {_FEWEST} rows with one label each")
        return section
    found: dict[str, tuple[float, Clue]] = {}
    for clue in _clues(material, rows):
        told = how_much(clue.values, targets, material.has_classes)
        if told > found.get(clue.source, (-1.0, clue))[0]:
            found[clue.source] = (told, clue)
    section.facts["told"] = {name: round(told, 4) for name, (told, _) in found.items()}
    telling = sorted(((told, clue) for told, clue in found.values() if told >= _MUCH), key=lambda pair: -pair[0])
    if not telling:
        looked = ", ".join(found) or "there are no other columns"
        section.lines.append(f"none ({looked})")
    for told, clue in telling:
        how = f" by its {clue.how}" if clue.how else ""
        section.lines.append(f"{clue.source} tells {told:.0%} of the label{how}")
        section.advice.append(_advice(clue, told >= _PERFECT))
    return section


def _advice(clue: Clue, perfect: bool) -> str:
    if clue.is_input:
        return (
            f"{clue.source} differs between the classes: the model may learn it in place of what is shown. Make all "
            "classes in the same way, and test on data where it says nothing"
        )
    if is_id(clue.source):
        return (
            f"{clue.source} goes with the label: never use it as an input. If it only numbers the rows, they stand in "
            "the order of the label, which does no harm"
        )
    if perfect:
        return f"{clue.source} gives the label away (or is the label in another form): never use it as an input"
    return f"{clue.source} says much about the label: would it be known when the model is used?"


def _clues(material: Material, rows: np.ndarray) -> Iterator[Clue]:
    split, columns = material.train, material.columns
    facts = split.facts
    if facts is not None:
        yield Clue("image width", "", facts.widths[rows].astype(float), True)
        yield Clue("image height", "", facts.heights[rows].astype(float), True)
        yield Clue("image mode", "", [facts.modes[row] for row in rows], True)
        yield Clue("image format", "", [facts.formats[row] for row in rows], True)
        yield from _file_names(material, rows)
    for name in (columns.text, columns.text_pair):
        if name is not None:
            lengths = [float(len(text)) for text in split.source.select(rows)[name]]
            yield Clue(f"length of {name}", "", np.array(lengths), True)
    used = {columns.label, columns.image, columns.text, columns.text_pair}
    for name, feature in split.source.features.items():
        if name not in used and not isinstance(feature, (Image, dict)):
            values = split.source.select_columns([name]).with_format(None)[rows.tolist()][name]
            yield from _of_column(name, feature, values)


def _file_names(material: Material, rows: np.ndarray) -> Iterator[Clue]:
    """Names of the image files; not where the class is a folder of the path, as in class folders."""
    images = material.train.rows.select_columns(["image"])[rows.tolist()]["image"]
    paths = [Path(image["path"]) if image and image["path"] else None for image in images]
    if any(path is None for path in paths):
        return
    named = [
        material.name(material.train.targets[row]) in path.parts  # type: ignore[union-attr]
        for row, path in zip(rows, paths, strict=True)
    ]
    if np.mean(named) < 0.95:
        yield from _of_text("file name", [path.name for path in paths])  # type: ignore[union-attr]


def _of_column(name: str, feature: Any, values: list[Any]) -> Iterator[Clue]:
    if isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view"):
        yield from _of_text(name, values)
        return
    yield Clue(name, "", [repr(value) for value in values])
    if all(value is None or isinstance(value, (int, float)) for value in values):
        yield Clue(name, "", np.array([np.nan if value is None else float(value) for value in values]))


def _of_text(name: str, values: Sequence[str | None]) -> Iterator[Clue]:
    texts = [value or "" for value in values]
    yield Clue(name, "", texts)
    yield Clue(name, "letters", [re.sub(r"\d+", "#", text) for text in texts])
    yield Clue(name, "length", np.array([float(len(text)) for text in texts]))
    numbers = [re.search(r"\d+", text) for text in texts]
    yield Clue(name, "number", np.array([float(found.group()) if found else np.nan for found in numbers]))


def how_much(values: Sequence[Any] | np.ndarray, targets: np.ndarray, classes: bool) -> float:
    """The share of the labels that a clue tells beyond the commonest label (or the mean), cross-validated; at least 0.

    Args:
        values: (N,) floats with NaN, or any categories.
        targets: (N,) class numbers, or numbers.
        classes: whether the targets are classes.
    """
    from sklearn.model_selection import KFold

    predicted = np.empty(len(targets), dtype=targets.dtype)
    for fit, held in KFold(_FOLDS, shuffle=True, random_state=0).split(targets):
        if isinstance(values, np.ndarray):
            predicted[held] = _by_tree(values, targets, fit, held, classes)
        else:
            predicted[held] = _by_lookup(values, targets, fit, held, classes)
    if not classes:
        return max(
            0.0, 1 - float(((predicted - targets) ** 2).sum() / max(((targets - targets.mean()) ** 2).sum(), 1e-12))
        )
    commonest = np.unique(targets, return_counts=True)[1].max() / len(targets)
    return 0.0 if commonest == 1 else max(0.0, float(((predicted == targets).mean() - commonest) / (1 - commonest)))


def _by_tree(values: np.ndarray, targets: np.ndarray, fit: np.ndarray, held: np.ndarray, classes: bool) -> np.ndarray:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    leaves = max(8, 2 * len(np.unique(targets))) if classes else 8
    tree = (DecisionTreeClassifier if classes else DecisionTreeRegressor)(max_leaf_nodes=leaves, random_state=0)
    column = np.nan_to_num(values, nan=np.nanmin(values, initial=0.0) - 1)[:, None].clip(-1e300, 1e300)
    answers: np.ndarray = tree.fit(column[fit], targets[fit]).predict(column[held])
    return answers


def _by_lookup(
    values: Sequence[Any], targets: np.ndarray, fit: np.ndarray, held: np.ndarray, classes: bool
) -> np.ndarray:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for place in fit:
        groups[values[place]].append(targets[place])
    answers = {value: _typical(group, classes) for value, group in groups.items()}
    default = _typical(targets[fit].tolist(), classes)
    return np.array([answers.get(values[place], default) for place in held])


def _typical(group: list[Any], classes: bool) -> Any:
    return Counter(group).most_common(1)[0][0] if classes else float(np.mean(group))
