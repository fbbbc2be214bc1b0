"""Whether a folder's run is the one that is asked for, and whether it can go on exactly."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.recipes import Recipe

# Facts that every run has: where one is missing, the run began before it was written down.
_ALWAYS = frozenset({"processes", "precision", "products", "attention"})


def differences(written: Recipe, asked: Recipe, free: Collection[str] = ()) -> list[str]:
    """Settings that differ, as `path: there | here`; a revision that the run has pinned is no difference.

    Args:
        written: of the run in the folder.
        asked: of this start.
        free: paths that may differ.
    """
    there, here = (
        _flat(recipe.model_dump(mode="json", exclude={"expected", "output_dir", "hub"})) for recipe in (written, asked)
    )
    return [
        f"{path}: there {there.get(path)!r}, here {here.get(path)!r}"
        for path in sorted(there.keys() | here.keys())
        if path not in free
        and there.get(path) != here.get(path)
        and not (path.endswith(".revision") and here.get(path) is None)
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    pairs = (_flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items())
    return {key: leaf for pair in pairs for key, leaf in pair.items() if leaf is not None}


def compare(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare the facts of a run when it began and now: other data or weights stop it, the rest is told.

    Args:
        then: of the run in the folder, without what it finds out only later.
        now: of this start.

    Raises:
        UserError: the run cannot go on exactly.
    """
    if then.get("data") != now.get("data"):
        raise UserError(
            "The data is not what this run was started on (another fingerprint), so it cannot go on exactly. "
            "Restore the data, or give another output_dir."
        )
    if then.get("frozen") != now.get("frozen"):
        raise UserError(
            "The frozen weights are not those that this run was started with (the checkpoint has changed), so it "
            "cannot go on exactly. Pin model.revision, restore the checkpoint, or give another output_dir."
        )
    if then.get("teacher") != now.get("teacher"):
        raise UserError(
            "The teacher's weights are not those that this run was started with, so it cannot go on exactly. Pin "
            "distill.revision, restore the teacher, or give another output_dir."
        )
    for name in sorted((then.keys() | now.keys()) - {"data", "frozen", "teacher"}):
        if then.get(name) == now.get(name) or (name in _ALWAYS and name not in then):
            continue
        began = f"with {name} {then[name]}" if name in then else f"without {name}"
        goes_on = f"with {now[name]}" if name in now else "without"
        say(f"note: this run was started {began} and goes on {goes_on}.")
