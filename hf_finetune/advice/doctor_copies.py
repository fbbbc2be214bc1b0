"""Rows that show the same: within a split, across splits, with labels that contradict each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from hf_finetune.advice.doctor_material import Material
from hf_finetune.advice.doctor_report import Section, count, row_name
from hf_finetune.data.cleaning_copies import Copy, comparable, exact_copies, near_copies

_USUAL_BITS = 4


def copies(material: Material) -> Section:
    """Exact copies, and near copies of images."""
    section = Section("Copies")
    # The test comes first in order, so that a training row that shows a test row is told as the copy.
    order = sorted(range(len(material.splits)), key=lambda place: -place)
    origins = [(place, row) for place in order for row in range(len(material.splits[place].rows))]
    digests = [digest for place in order for digest in material.splits[place].looked.digests]
    exact = exact_copies(digests)
    pairs = [_pair(material, origins, copy) for copy in exact]
    _tell(section, pairs, "exact copies", "exact")
    if material.train.facts is not None:
        places = comparable(digests, [material.splits[place].looked for place in order], exact)
        hashes = np.concatenate([material.splits[place].facts.hashes for place in order])  # type: ignore[union-attr]
        clean = material.recipe.data.clean
        bits = clean.near_duplicates if clean and clean.near_duplicates is not None else _USUAL_BITS
        near = [_pair(material, origins, copy) for copy in near_copies(hashes, places, bits)]
        _tell(section, near, f"near copies (at most {bits} of 64 bits of the perceptual hash differ)", "near")
        if masked := sum(sum(split.looked.masked) for split in material.splits):
            section.lines.append(f"not compared for near copies: {count(masked, 'image')} with an alpha channel")
        _advise_near(section, material, near, bits)
    _advise_exact(section, material, pairs)
    return section


def _pair(material: Material, origins: list[tuple[int, int]], copy: Copy) -> dict[str, Any]:
    (place, row), (first, first_row) = origins[copy.place], origins[copy.original]
    mine, other = material.splits[place], material.splits[first]
    labels = mine.targets[row], other.targets[first_row]
    return {
        **mine.show(row),
        "copy_of": other.show(first_row),
        "bits": copy.bits,
        "labels": [None if label is None else material.name(label) for label in labels],
        "contradict": None not in labels and labels[0] != labels[1],
    }


def _tell(section: Section, pairs: list[dict[str, Any]], words: str, key: str) -> None:
    section.facts[key] = pairs
    if not pairs:
        section.lines.append(f"no {words}")
        return
    where = Counter(
        f"within {pair['split']}"
        if pair["split"] == pair["copy_of"]["split"]
        else f"of {pair['copy_of']['split']} rows in {pair['split']}"
        for pair in pairs
    )
    section.lines.append(f"{words}: {', '.join(f'{number:,} {place}' for place, number in where.most_common())}")
    # What crosses splits or contradicts itself matters most.
    ranked = sorted(pairs, key=lambda pair: (pair["split"] == pair["copy_of"]["split"], not pair["contradict"]))
    section.add_rows([_line(pair) for pair in ranked])


def _line(pair: dict[str, Any]) -> str:
    first = pair["copy_of"]
    names = [row_name(row["split"], row["row"], row.get("path"), row.get("text")) for row in (pair, first)]
    labels = f"; labels {pair['labels'][0]} and {pair['labels'][1]}" if pair["contradict"] else ""
    return f"{names[0]} = {names[1]}{labels}"


def _advise_exact(section: Section, material: Material, pairs: list[dict[str, Any]]) -> None:
    within = [pair for pair in pairs if pair["split"] == pair["copy_of"]["split"] == material.train.name]
    across = [pair for pair in pairs if pair["split"] != pair["copy_of"]["split"]]
    test = material.recipe.data.test_split
    learnt = [pair for pair in across if pair["copy_of"]["split"] == test]
    if within or len(across) > len(learnt):
        section.advice.append(
            "data.clean='{duplicates: true}' drops copies from the training rows (never from the test)"
        )
    if learnt:
        section.advice.append(
            f"{count(len(learnt), 'row')} of {test} can be learnt by heart: take the copies out of the other splits, "
            "or the test score flatters"
        )
    if contrary := sum(pair["contradict"] for pair in pairs):
        section.advice.append(f"{count(contrary, 'copy', 'copies')} with two labels: decide which one is right")


def _advise_near(section: Section, material: Material, pairs: list[dict[str, Any]], bits: int) -> None:
    if not pairs:
        return
    if np.mean(material.train.looked.coloured) >= 0.5:
        section.advice.append(
            f"look at a few, then data.clean='{{near_duplicates: {bits}}}' drops near copies from train"
        )
    else:
        section.advice.append(
            "grey or simple pictures look alike in 64 bits without being copies: look at a few before you use "
            "data.clean.near_duplicates, and then with 0 to 2 bits"
        )
