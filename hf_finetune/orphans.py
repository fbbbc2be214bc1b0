"""Processes that this one starts to help it end when it does, also where it is killed and can tell them nothing.

torch's loader workers look whether their parent is still the one that they had when they began to look. Where that was
killed a moment before, the machine's first process has adopted them: they wait for it to end, which it never does. The
processes that `datasets` starts for a pass over rows, and those processes' manager, do not look at all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY = 1.0  # seconds between two looks

_blocks = 0  # `forks_end_with_this` that this process, or the one that has forked it, is in
_forking = 0  # the process that forks
_registered: list[bool] = []


def end_with(parent: int) -> None:
    """From now on this process ends when another one does: at once if that is so already, else within a second.

    Args:
        parent: number of the process that has started this one, or had it started by a fork server.
    """
    _end_if_left(parent)
    threading.Thread(target=_look, args=(parent,), name="looks after its parent", daemon=True).start()


@contextmanager
def forks_end_with_this() -> Iterator[None]:
    """What is forked inside, by whichever library, ends with the process that has forked it.

    Windows has no forks, and processes that are started anew (macOS) begin without knowing of this.
    """
    global _blocks
    if hasattr(os, "register_at_fork") and not _registered:
        _registered.append(True)
        os.register_at_fork(before=_note, after_in_child=_begin)
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1


def _note() -> None:
    global _forking
    _forking = os.getpid()


def _begin() -> None:
    if _blocks:
        end_with(_forking)


def _look(parent: int) -> None:
    while True:
        time.sleep(_EVERY)
        _end_if_left(parent)


def _end_if_left(parent: int) -> None:
    if os.getppid() != parent and not _lives(parent):
        os._exit(1)  # nobody is left to be told


def _lives(process: int) -> bool:
    """Whether a process goes on: then a fork server stands between it and this one."""
    import psutil

    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
