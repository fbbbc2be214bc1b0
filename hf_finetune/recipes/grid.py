"""`key=one,two` on the command line: an axis of a comparison; every combination of the axes is one recipe.

    strategy=head,lora,full model.checkpoint=a,b strategy.r=4,8

A comma makes an axis only where a key is given that way; inside of brackets, braces and quotes it is part of a value
(`model.head.hidden=[64,64]`, `data.dataset='"a,b.csv"'`). A key that only some strategies have (`strategy.r`) is laid
over those alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from hf_finetune.errors import Fault
from hf_finetune.recipes.keys import wrong_kind
from hf_finetune.recipes.overrides import KINDS_AT

MOST = 200  # combinations: beyond them nobody looks at a table
# What tells runs apart without making them other recipes, and what makes their scores those of different things.
_NO_AXIS = {
    "seed": "give seeds=N: each combination is then trained with N seeds",
    "seeds": "it is one number: each combination is trained with so many seeds",
    "output_dir": "each run gets a folder of its own inside the one output_dir",
    "budget": "it is the same for all: that is what makes them comparable",
    "precision": "it is the same for all",
    "recipe": "give one recipe, and what differs as axes",
    "task": "other tasks cannot be compared",
    "hub": "nothing is pushed by a comparison",
    "evaluation.metrics": "all are measured alike; a list is written [accuracy,macro_f1]",
    "evaluation.best": "all are measured alike",
    "evaluation.test": "all are measured alike",
    "evaluation.bootstrap": "all are measured alike",
}
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_LONGEST = 80  # letters of a folder's name


@dataclass(frozen=True)
class Cell:
    """One combination.

    Args:
        name: for people: the values in which it differs.
        folder: the same as a folder's name.
        pairs: `key=value` to lay over the recipe.
    """

    name: str
    folder: str
    pairs: tuple[str, ...]


def split_values(text: str) -> list[str]:
    """The parts between commas that stand in no brackets and no quotes."""
    parts, start, closing, quote = [], 0, [], ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not text[start:place].strip(" [{("):  # elsewhere it is an apostrophe
            quote = letter
        elif letter in _BRACKETS:
            closing.append(_BRACKETS[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in (*parts, text[start:])]


def axes_of(pairs: Sequence[str]) -> tuple[dict[str, list[str]], list[str], list[Fault]]:
    """The axes by their keys, the pairs that are the same for all, and what cannot be an axis."""
    axes: dict[str, list[str]] = {}
    common: list[str] = []
    faults: list[Fault] = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        values = split_values(text) if equals else []
        if len(values) < 2:
            common.append(pair)
            continue
        key = key.strip()
        reason = next((why for name, why in _NO_AXIS.items() if key == name or key.startswith(f"{name}.")), None)
        if reason is not None:
            faults.append(Fault(key, f"'{text}' has several values, and this can be no axis: {reason}", "command line"))
        elif not all(values):
            faults.append(Fault(key, f"'{text}' has an empty value between its commas", "command line"))
        elif key in axes:
            faults.append(Fault(key, "is given as an axis twice: give all its values at once", "command line"))
        else:
            axes[key] = list(dict.fromkeys(values))
    return axes, common, faults


def cells_of(axes: Mapping[str, Sequence[str]], common: Sequence[str], kinds: Mapping[str, str]) -> list[Cell]:
    """Every combination once, the first axis slowest.

    Args:
        axes: values by key.
        common: pairs that are laid over all, where a kind has the key at all.
        kinds: of the recipe itself, by `strategy` and `model.head`.
    """
    every = [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]
    fixed = [(key, value) for key, _, value in (pair.partition("=") for pair in common)]
    whole = [_Combination((*fixed, *own), {**kinds, **_chosen((*fixed, *own))}) for own in every]
    cells: dict[tuple[tuple[str, str], ...], tuple[str, tuple[str, ...]]] = {}
    for one in whole:
        pairs = one.that_fit(whole)
        differs = tuple((key, value) for key, value in pairs if key in axes)
        cells.setdefault(differs, (_name(differs, axes), tuple(f"{key}={value}" for key, value in pairs)))
    folders = _folders([name for name, _ in cells.values()])
    return [Cell(name, folder, pairs) for (name, pairs), folder in zip(cells.values(), folders, strict=True)]


@dataclass(frozen=True)
class _Combination:
    pairs: tuple[tuple[str, str], ...]
    kinds: Mapping[str, str]

    def has(self, key: str) -> bool:
        """Whether a key exists in the kinds that are chosen here."""
        section = next((".".join(at) for at in KINDS_AT if key.startswith(f"{'.'.join(at)}.")), None)
        return section is None or wrong_kind(key, self.kinds[section]) is None

    def that_fit(self, others: Sequence[_Combination]) -> tuple[tuple[str, str], ...]:
        """Its pairs without those that are for other combinations; what fits none stays, as the fault it is."""
        return tuple(
            (key, value) for key, value in self.pairs if self.has(key) or not any(other.has(key) for other in others)
        )


def _chosen(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    sections = {".".join(at) for at in KINDS_AT}
    found = {}
    for key, value in pairs:
        section = key.removesuffix(".kind")
        if section in sections and not value.startswith(("{", "[")):
            found[section] = value
    return found


def _name(differs: Sequence[tuple[str, str]], axes: Mapping[str, Sequence[str]]) -> str:
    words = []
    for key, value in differs:
        if key.removesuffix(".kind") == "strategy":
            words.append(value)
        elif key == "model.checkpoint":
            words.append(_short(value, axes[key]))
        else:
            words.append(f"{key.rpartition('.')[2]}={value}")
    return ", ".join(words) or "the recipe"


def _short(checkpoint: str, all_of_them: Sequence[str]) -> str:
    """The last part of a checkpoint's name, where that tells them apart."""
    last = [each.rstrip("/").rpartition("/")[2] for each in all_of_them]
    return checkpoint.rstrip("/").rpartition("/")[2] if len(set(last)) == len(last) else checkpoint


def _folders(names: Sequence[str]) -> list[str]:
    """Names that every file system takes, all different, also where it does not tell capitals from small letters."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.=-]+", "_", name, flags=re.ASCII).strip("._")[:_LONGEST] or "run"
        taken = {each.lower() for each in found}
        number, folder = 2, plain
        while folder.lower() in taken:
            folder, number = f"{plain}_{number}", number + 1
        found.append(folder)
    return found
