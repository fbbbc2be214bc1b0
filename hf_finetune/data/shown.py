"""Values of strangers' data in a message: on one line, short, and without what a terminal would obey."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MOST = 80  # characters


def shown(value: Any, most: int = _MOST) -> str:
    """A value in a message: control characters and lone surrogates escaped, the middle left out where it is long."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: most + 1])
    return line if len(line) <= most else f"{line[: most - 20]}... ({len(text):,} characters)"


def listed(values: Iterable[Any], most: int = 10) -> str:
    """The first few values, each in quotes, and how many there are where some are left out."""
    everything = list(values)
    told = ", ".join(f"'{shown(value)}'" for value in everything[:most])
    return told + (f", ... ({len(everything):,})" if len(everything) > most else "")
