"""A resolved recipe as YAML with a comment on each line that says where its value came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_finetune.recipes.yaml_text import read_yaml

if TYPE_CHECKING:
    from hf_finetune.recipes.load import Resolved


def with_origins(resolved: Resolved) -> str:
    """The recipe's YAML, each line ending with the origin of its value: a file's line, the command line, default."""
    text = resolved.recipe.to_yaml()
    lines = text.splitlines()
    reading = read_yaml(text)
    leaves = {line: path for path, line in reading.lines.items()}  # of several keys on one line the last, innermost
    holders = {path[:-1] for path in reading.lines}
    width = max(len(lines[line - 1]) for line, path in leaves.items() if path not in holders)
    for number, path in leaves.items():
        if path not in holders:
            origin = resolved.origins.get(path) or _inside(resolved, path) or "default"
            lines[number - 1] = f"{lines[number - 1]:{width}}  # {origin}"
    return "\n".join(lines) + "\n"


def _inside(resolved: Resolved, path: tuple[str, ...]) -> str | None:
    """The origin of a value inside a mapping that was given whole, such as a list's or a dictionary's."""
    values = [given for given in resolved.origins if given and path[: len(given)] == given and len(given) > 1]
    longest = max(values, key=len, default=None)
    return resolved.origins[longest] if longest is not None and longest not in _sections() else None


def _sections() -> set[tuple[str, ...]]:
    from hf_finetune.recipes.keys import known_keys

    keys = [tuple(key.split(".")) for key in known_keys()]
    return {key for key in keys if any(other[: len(key)] == key and other != key for other in keys)}
