"""Files written whole or not at all: a reader never meets half of one, and a crash leaves the old one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

SAVING = ".saving-"  # before the name of a folder in which several files are made before they take their places


def write_whole(path: str | Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write to a temporary name in the same folder, flush to the disk, and take the place of `path` in one step.

    Args:
        path: the file; its folder must exist.
        content: text (as UTF-8), bytes, or a function that writes to the path it is given.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether it is what a writer that was killed has left, or one that still goes on: it is nobody's."""
    if path.name.startswith(SAVING):
        return path.is_dir()
    return re.fullmatch(r"\..+?(\.[^.]+)\.\d+\1", path.name) is not None and path.is_file()


def clear_leftovers(folder: Path) -> None:
    """Delete what killed writers have left in a folder in which nobody else writes now."""
    for path in filter(is_leftover, list(folder.iterdir())):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
