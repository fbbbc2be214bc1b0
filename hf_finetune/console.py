"""One rank speaks: the only place that prints to the user."""

from __future__ import annotations

import os
import re
import sys

# Control characters but tab and newline, marks that reorder a line, and halves of pairs, which no terminal can print.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def is_main_process() -> bool:
    """Whether this is rank 0, as the launcher's environment says (known before torch is imported)."""
    return int(os.environ.get("RANK", "0")) == 0


def inert(text: str) -> str:
    """Text whose control characters are escaped: names of classes and files come from strangers, and terminals obey."""
    return _OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def say(text: str = "") -> None:
    """Print a line for the user on rank 0, flushed, so that it keeps its place among progress bars."""
    if is_main_process():
        print(inert(text), flush=True)


def warn(text: str) -> None:
    """Print a warning on rank 0 to standard error."""
    if is_main_process():
        print(f"warning: {inert(text)}", file=sys.stderr, flush=True)
