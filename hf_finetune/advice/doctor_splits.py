"""Rows and labels of each split: how many, how balanced, whether the names agree, which rows are broken."""

from __future__ import annotations

import difflib
from collections import Counter

import numpy as np

from hf_finetune.advice.doctor_material import Material, Split
from hf_finetune.advice.doctor_report import SHOWN, Section, count, row_name, spread

_UNEVEN = 5  # times as many rows in the largest class as in the smallest: worth a word
_FEW = 10  # rows of a class below which little can be learnt or measured


def sizes(material: Material) -> Section:
    """Rows of each split."""
    section = Section("Rows")
    width = max(len(name) for name in [*(split.name for split in material.splits), *material.others])
    for split in material.splits:
        section.lines.append(f"{split.name:{width}}  {len(split.rows):>9,}")
    section.lines += [f"{name:{width}}  {rows:>9,}  not used by this recipe" for name, rows in material.others.items()]
    section.facts["splits"] = {split.name: len(split.rows) for split in material.splits} | material.others
    section.advice += material.faults
    return section


def broken(material: Material) -> Section:
    """Rows whose image, text or label cannot be used."""
    section = Section("Broken rows")
    rows = [row for split in material.splits for row in split.broken]
    section.facts["rows"] = rows
    if not rows:
        section.lines.append("none")
        return section
    section.lines.append(f"{count(len(rows), 'row')} cannot be used:")
    section.add_rows([f"{row_name(row['split'], row['row'], row['path'])}: {row['reason']}" for row in rows])
    section.advice.append("mend these rows, or leave them out with data.on_error=skip")
    return section


def balance(material: Material) -> Section:
    """Rows of each class, or the spread of the numbers."""
    if material.labels.problem_type == "regression":
        return _numbers(material)
    section = Section("Classes")
    counts = {split.name: _count(material, split) for split in material.splits}
    section.facts["rows_of_class"] = counts
    train = counts[material.train.name]
    ranked = sorted(train, key=lambda name: -train[name])
    shown = ranked if len(ranked) <= SHOWN else [*ranked[: SHOWN // 2], "...", *ranked[-SHOWN // 2 :]]
    names = [split.name for split in material.splits]
    width = max(map(len, shown))
    section.lines.append(f"{'':{width}}  " + "  ".join(f"{name:>10}" for name in names))
    for name in shown:
        cells = "  ".join(f"{counts[split].get(name, 0) if name != '...' else '':>10}" for split in names)
        section.lines.append(f"{name:{width}}  {cells}")
    largest, smallest = ranked[0], ranked[-1]
    if train[largest] >= _UNEVEN * max(train[smallest], 1):
        section.lines.append(f"{largest} has {train[largest]:,} training rows, {smallest} has {train[smallest]:,}")
        remedy = "or loss.sampling=balanced" if material.has_classes else "for multi-label, or more rows of the rare"
        section.advice.append(f"uneven classes: loss.class_weights=balanced {remedy}; read macro_f1 beside accuracy")
    if few := [name for name in ranked if train[name] < _FEW]:
        section.advice.append(f"{_listed(few)}: fewer than {_FEW} training rows; find more, or join classes")
    return section


def _numbers(material: Material) -> Section:
    section = Section("Targets")
    for split in material.splits:
        values = np.array([target for target in split.targets if target is not None], dtype=np.float64)
        values = values.reshape(len(values), -1)
        for place, name in enumerate(material.labels.names):
            if len(values):
                section.lines.append(f"{split.name}: {name} {spread(values[:, place])}")
                section.facts[f"{split.name}.{name}"] = {
                    "min": values[:, place].min(),
                    "median": np.median(values[:, place]),
                    "max": values[:, place].max(),
                }
    return section


def _count(material: Material, split: Split) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for target in split.targets:
        if target is not None:
            names = material.labels.decode(target)
            counts.update(map(str, names) if isinstance(names, list) else [str(names)])
    return {name: counts[name] for name in material.labels.names}


def names_that_differ(material: Material) -> Section | None:
    """Classes that only some splits have, and names that look like misspellings of each other; None for regression."""
    if material.labels.problem_type == "regression":
        return None
    section = Section("Label names")
    known = material.labels.names
    present = {
        split.name: {name for name, rows in _count(material, split).items() if rows} for split in material.splits
    }
    for split in material.splits:
        for name, rows in sorted(split.strangers.items()):
            section.lines.append(f"{split.name}: '{name}' ({count(rows, 'row')}) is no class of {material.train.name}")
            close = _close(name, known)
            section.advice.append(
                f"'{name}' in {split.name}: {f'rename it to {close!r}' if close else 'add training rows of it'}, or "
                "take those rows out"
            )
        absent = [name for name in known if name not in present[split.name]]
        if absent:
            section.lines.append(f"{split.name} has no row of {_listed(absent)}")
    for first, second in _twins(known):
        section.lines.append(f"'{first}' and '{second}' differ in case or spaces alone")
        section.advice.append(f"'{first}' and '{second}': if they are one class, give it one name")
    section.facts |= {
        "strangers": {split.name: split.strangers for split in material.splits if split.strangers},
        "absent": {
            split.name: [name for name in known if name not in present[split.name]] for split in material.splits
        },
    }
    if not section.lines:
        section.lines.append("the same in every split")
    return section


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum()) or name


def _close(name: str, known: tuple[str, ...]) -> str | None:
    alike = [other for other in known if _plain(other) == _plain(name)]
    return next(iter(alike or difflib.get_close_matches(name, known, n=1, cutoff=0.75)), None)


def _twins(names: tuple[str, ...]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    return [(first[_plain(n)], n) for n in names if first.setdefault(_plain(n), n) != n]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names):,})" if len(names) > SHOWN else "")
