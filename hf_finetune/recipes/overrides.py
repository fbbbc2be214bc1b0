"""`dotted.path=value` laid over a recipe's tree of text, before the schema gives anything a type."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_finetune.errors import Fault
from hf_finetune.recipes.faults import shown
from hf_finetune.recipes.keys import kinds_at, known_keys, mapping_keys, unknown_key
from hf_finetune.recipes.optimizer_names import RATE_OVER_ADAMW
from hf_finetune.recipes.yaml_text import DEEPEST, Path, Plain, as_yaml, half_character, read_value

KINDS_AT: tuple[Path, ...] = (("strategy",), ("model", "head"))

# What is pinned to another value of the recipe goes when that value changes.
_PINNED: dict[Path, tuple[str, ...]] = {
    ("model", "checkpoint"): ("revision",),
    ("data", "dataset"): (
        "config", "revision", "image", "text", "text_pair", "label", "train_split", "test_split", "validation",
    ),
}  # fmt: skip
_SPLITS = ("train_split", "test_split", "validation")
# A name that stands for a section; a key inside takes its place.
_NAME_OR_SECTION: tuple[Path, ...] = (("data", "augment"),)
_LONGEST_PATH = 2_000  # characters of a dotted path
# Changing one of these leaves a recipe's measured result standing.
_UNMEASURED: tuple[Path, ...] = (("expected",), ("seed",), ("seeds",), ("output_dir",), ("hub",))


@dataclass
class Tree:
    """A recipe before it is typed.

    Args:
        values: nested mappings down to text, null and lists.
        origins: where each key was given, by its path.
        notes: what the user should know about values that went because others changed.
    """

    values: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rate_dropped: str | None = None

    def get(self, path: Path) -> Any:
        """The value at a path, None where there is none."""
        value: Any = self.values
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def remove(self, path: Path) -> None:
        """Take a key out, and the origins of everything in it."""
        holder = self.get(path[:-1])
        if isinstance(holder, dict):
            holder.pop(path[-1], None)
        for given in [given for given in self.origins if given[: len(path)] == path]:
            del self.origins[given]

    def set(self, path: Path, value: Any, origin: str) -> None:
        """Put a value in; sections on the way are opened, but a section given as text stays the fault it is."""
        self.remove(path)
        holder: Any = self.values
        for depth, name in enumerate(path[:-1], start=1):
            if not isinstance(holder.get(name), dict):
                if path[:depth] in _NAME_OR_SECTION and holder.get(name) is not None:
                    key = ".".join(path[:depth])
                    self.notes.append(f"{key} {shown(holder[name])} gives way to what is named in {key}")
                elif holder.get(name) is not None and ".".join(path[:depth]) not in mapping_keys():
                    return
                holder[name] = {}
            holder = holder[name]
        holder[path[-1]] = value
        self._record(path, value, origin)

    def _record(self, path: Path, value: Any, origin: str) -> None:
        self.origins[path] = origin
        for name, inner in value.items() if isinstance(value, dict) else ():
            self._record((*path, name), inner, origin)


def spell_out_kinds(tree: Tree) -> None:
    """`strategy: lora` becomes `strategy: {kind: lora}`."""
    for path in KINDS_AT:
        value = tree.get(path)
        if isinstance(value, str):
            tree.set(path, {"kind": value}, tree.origins.get(path, "default"))


def parse(pairs: Sequence[str], origin: str) -> tuple[dict[Path, Any], list[Fault]]:
    """Split `dotted.path=value` pairs; of a path given twice the last one holds.

    Returns:
        The values by path, and a fault for every pair that is malformed or names no key.
    """
    values: dict[Path, Any] = {}
    faults = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if half := half_character(pair):
            faults.append(Fault(shown(key), half, origin))
            continue
        if not equals or not key:
            faults.append(Fault(shown(pair), f"is not key=value{_intended(pair)}", origin))
            continue
        path = tuple(key.split("."))
        if len(path) > DEEPEST or len(key) > _LONGEST_PATH or not all(path):
            faults.append(Fault(shown(key), "is no path of a recipe: names with single dots between them", origin))
        elif key.startswith("-"):
            faults.append(Fault(key, f"keys have no dashes in front: write {key.lstrip('-')}={text}", origin))
        elif key not in known_keys() and not key.startswith(tuple(f"{name}." for name in mapping_keys())):
            faults.append(Fault(key, unknown_key(key), origin))
        elif not text.strip():
            faults.append(Fault(key, f"has no value: write {key}=null to unset it", origin))
        else:
            try:
                values[path] = read_value(text)
            except ValueError as error:
                message = f"{shown(text)} begins as a list, mapping or quoted text and is not one ({error})"
                faults.append(Fault(key, f"{message}; to mean it as text, quote it within: {key}='\"...\"'", origin))
    return values, faults


def _intended(pair: str) -> str:
    bare = pair.lstrip("-")
    if bare in known_keys():
        return f": write {bare}=VALUE"
    kinds = [path for path in map(".".join, KINDS_AT) if bare in kinds_at(path)]
    return f": did you mean {kinds[0]}={bare}?" if kinds else ""


def apply(tree: Tree, values: dict[Path, Any], origin: str) -> Tree:
    """A new tree with the values laid over it, whatever the order they were given in.

    A kind is chosen first and brings its own defaults, then fields are set. A learning rate tuned for another strategy,
    and the revision, configuration, columns and splits of another checkpoint or data set, do not stay behind.
    """
    tree = Tree(copy.deepcopy(tree.values), dict(tree.origins), list(tree.notes))
    values = _kinds_spelled_out(values)
    for path in KINDS_AT:
        _choose_kind(tree, path, values, origin)
    _choose_optimizer(tree, values)
    for path in _PINNED:
        _drop_pinned(tree, path, values)
    for path in sorted(values, key=len):
        tree.set(path, values[path], origin)
    if any(path[0] not in [kept[0] for kept in _UNMEASURED] for path in values) and ("expected",) not in values:
        tree.remove(("expected",))
    return tree


def _kinds_spelled_out(values: dict[Path, Any]) -> dict[Path, Any]:
    """`strategy=lora` means `strategy.kind=lora`."""
    spelled = {}
    for path, value in values.items():
        spelled[(*path, "kind") if path in KINDS_AT and isinstance(value, str) else path] = value
    return spelled


def _drop_pinned(tree: Tree, path: Path, values: dict[Path, Any]) -> None:
    """Take out what was said of another checkpoint or data set, unless it is said anew."""
    before, section = tree.get(path), path[0]
    changes = path in values and before is not None and before != values[path]
    replaced = not isinstance(before, dict) and any(given[: len(path)] == path != given for given in values)
    if not changes and not replaced:
        return
    names = [
        name for name in _PINNED[path] if (section, name) not in values and _is_set(tree.get((section, name)), name)
    ]
    if "text_pair" in names and "text" in names:
        # Which of two columns comes first cannot be found: pairs keep their names until others are given.
        names = [name for name in names if name not in ("text", "text_pair")]
    if not names:
        return
    was = ", ".join(f"{name} {shown(tree.get((section, name)))}" for name in names)
    tree.notes.append(
        f"{section}: {was} belonged to {shown(before)}, and {'is' if len(names) == 1 else 'are'} left out"
    )
    for name in names:
        tree.remove((section, name))


def _is_set(value: Any, name: str) -> bool:
    """Whether it says something of the data set: a share of the rows fits any."""
    if name in _SPLITS:
        return isinstance(value, str) and value != "auto" and not isinstance(as_yaml(Plain(value)), (int, float))
    return value is not None


def _choose_kind(tree: Tree, path: Path, values: dict[Path, Any], origin: str) -> None:
    """Drop the fields of the kind a recipe had when another is chosen; with the strategy, its learning rate."""
    whole = values.get(path)
    chosen = whole.get("kind") if isinstance(whole, dict) else values.get((*path, "kind"))
    before = (tree.get((*path, "kind"))) or Plain(kinds_at(".".join(path))[0])
    if tree.get(path) is None and any(given[: len(path)] == path != given for given in values):
        tree.set(path, {"kind": before}, "default")  # fields of a section that the recipe leaves to its default
    if chosen is None or chosen == before:
        return
    tree.set(path, {"kind": chosen}, origin)
    rate = tree.get(("training", "learning_rate"))
    given = ("training", "learning_rate") in values or ("training",) in values
    if path == ("strategy",) and rate is not None and not given:
        tree.remove(("training", "learning_rate"))
        tree.rate_dropped = f"the recipe's learning rate {rate} was for strategy {before}"


def _choose_optimizer(tree: Tree, values: dict[Path, Any]) -> None:
    """Drop the recipe's learning rate when an optimizer is chosen whose rates are of another size."""
    before, chosen = str(tree.get(("training", "optim"))), values.get(("training", "optim"))
    rate = tree.get(("training", "learning_rate"))
    given = ("training", "learning_rate") in values or ("training",) in values
    if chosen is None or rate is None or given:
        return
    if RATE_OVER_ADAMW.get(str(chosen), 1.0) != RATE_OVER_ADAMW.get(before, 1.0):
        tree.remove(("training", "learning_rate"))
        was = before if before in RATE_OVER_ADAMW else "adamw"
        tree.rate_dropped = f"the recipe's learning rate {rate} was for optimizer {was}"
