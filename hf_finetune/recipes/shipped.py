"""The recipes that come with hf_finetune."""

from __future__ import annotations

import difflib
from pathlib import Path

from hf_finetune.errors import UserError


def shipped_folder() -> Path:
    """Where the shipped YAML files are: inside the wheel, or the repository's recipes/ when installed from there."""
    inside = Path(__file__).resolve().parent / "shipped"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "recipes"


def shipped_files() -> dict[str, Path]:
    """Every shipped recipe's file by its name, in the order of names."""
    return {file.stem: file for file in sorted(shipped_folder().rglob("*.yaml"), key=lambda file: file.stem)}


def list_recipes() -> dict[str, str]:
    """The shipped recipes: name -> what it fine-tunes on what, from the first line of its file."""
    titles = {}
    for name, file in shipped_files().items():
        with file.open(encoding="utf-8") as lines:
            titles[name] = next(lines, "").lstrip("# ").strip()
    return titles


def shipped_file(name: str) -> Path:
    """The file of a shipped recipe.

    Raises:
        UserError: there is none of that name.
    """
    files = shipped_files()
    if name in files:
        return files[name]
    close = difflib.get_close_matches(name, files, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"recipe={name}: no such recipe; {guess}The shipped ones are {', '.join(files)}; "
        "a file of your own is given as recipe=FILE.yaml"
    )
