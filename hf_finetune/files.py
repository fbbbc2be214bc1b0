"""Files written whole or not at all: a reader never meets half of one, and a crash leaves the old one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path


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
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether it is the temporary file of a `write_whole` that was killed, or still goes on: it is nobody's."""
    return re.fullmatch(r"\..+?(\.[^.]+)\.\d+\1", path.name) is not None and path.is_file()


def clear_leftovers(folder: Path) -> None:
    """Delete what killed writers have left in a folder in which nobody else writes now."""
    for path in filter(is_leftover, list(folder.iterdir())):
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # Windows flushes no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
