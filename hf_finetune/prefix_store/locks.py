"""Who uses an entry, so that nobody deletes it, and locks that leave no file behind."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, SoftFileLock

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]


def release(lock: BaseFileLock) -> None:
    """Give a lock back and leave no file of it; nothing where it is not held.

    The file goes while it is locked: who waited for it finds its lock without a name, and makes another (filelock).
    """
    if not lock.is_locked:
        return
    if os.name == "posix" and not isinstance(lock, SoftFileLock):
        with suppress(OSError):
            Path(lock.lock_file).unlink()
    lock.release()


def hold(file: Path, owner: object) -> None:
    """Say that this process uses a file, as long as the owner lives or the process does."""
    if fcntl is None:
        return
    with suppress(OSError):  # a disk without locks
        number = os.open(file, os.O_RDONLY)
        weakref.finalize(owner, os.close, number)
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)


def in_use(file: Path) -> bool:
    """Whether a process holds a file, or that cannot be told."""
    if fcntl is None:
        return False
    try:
        number = os.open(file, os.O_RDWR)
    except OSError:
        return file.exists()
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(number)
    return False
