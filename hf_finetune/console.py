"""One rank speaks: the only place that prints to the user."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def is_main_process() -> bool:
    """Whether this is rank 0, as the launcher's environment says (known before torch is imported)."""
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str = "") -> None:
    """Print a line for the user on rank 0, flushed, so that it keeps its place among progress bars."""
    if is_main_process():
        _print(text, sys.stdout)


def warn(text: str) -> None:
    """Print a warning on rank 0 to standard error."""
    if is_main_process():
        _print(f"warning: {text}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # nobody reads any more: the caller decides
        raise
    except OSError:  # a log on a full disk: no reason to lose a run
        return
