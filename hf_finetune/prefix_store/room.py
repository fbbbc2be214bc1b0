"""Room on the disk for features: how much they may take in all, and what goes when there is no more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import Timeout

from hf_finetune.prefix_store.entry import PARTIAL, Entry, entries, home, lock_of, whole
from hf_finetune.prefix_store.locks import in_use, release

_GONE = ".gone-"


class Cleared(NamedTuple):
    """What `clear` has deleted.

    Args:
        entries: how many.
        bytes: of them.
        left: entries that a run is using or filling.
    """

    entries: int
    bytes: int
    left: int


def clear(key: str | None = None, older_than_days: float | None = None) -> Cleared:
    """Delete entries: one by the beginning of its key, those not used for so many days, or all; none that is in use."""
    limit = None if older_than_days is None else time.time() - older_than_days * 86400
    gone, size, left = 0, 0, 0
    for entry in entries():
        if key is not None and not entry.key.startswith(key):
            continue
        if limit is not None and entry.last_used > limit:
            continue
        if _removed(entry):
            gone, size = gone + 1, size + entry.meta.bytes
        else:
            left += 1
    if key is None and limit is None:
        _tidy()
    return Cleared(gone, size, left)


def free_bytes() -> int:
    """Free space where the entries lie."""
    place = home()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def total() -> int:
    """Bytes of all entries, and of those that are being filled."""
    return _taken(())


def bound(share: float) -> int:
    """Most bytes of the folder: a share of what it takes and what is free beside it, which deleting does not change."""
    return int(share * (free_bytes() + total()))


def room(most: int, wanted: Collection[str]) -> int:
    """Bytes that new entries may take, if all that nobody uses were deleted; less than 0 where there is too much.

    Args:
        most: bytes of the folder.
        wanted: keys of entries that stay, or are to come; what another run fills of them now is not counted.
    """
    _tidy()  # what a killed run has left is no reason against the run that is to take its place
    free = sum(entry.meta.bytes for entry in entries() if entry.key not in wanted and _idle(entry))
    return most - _taken(wanted) + free


def make_room(needed: int, most: int, wanted: Collection[str]) -> list[Entry]:
    """Delete what was not used for longest until the folder with so many bytes more stays within its bound.

    Args:
        needed: bytes of entries to come.
        most: bytes of the folder.
        wanted: keys of entries that stay, or are to come, beside those that a process holds.

    Returns:
        what was deleted.
    """
    if _taken(wanted) + needed <= most:
        return []
    _tidy()
    gone: list[Entry] = []
    for entry in reversed(entries()):
        if _taken(wanted) + needed <= most:
            break
        if entry.key not in wanted and _removed(entry):
            gone.append(entry)
    return gone


def _taken(wanted: Collection[str]) -> int:
    """Bytes of all entries, and of those that are being filled but for the wanted: they are counted as needed."""
    filling = (folder for folder in home().glob(f"{PARTIAL}*") if folder.name.removeprefix(PARTIAL) not in wanted)
    return sum(entry.meta.bytes for entry in entries()) + sum(_size(folder / "rows.bin") for folder in filling)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # just finished, or deleted
        return 0


@contextmanager
def _locked(key: str) -> Iterator[bool]:
    """Whether the key's lock could be had at once; it is held inside."""
    lock = lock_of(key)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        release(lock)


def _idle(entry: Entry) -> bool:
    with _locked(entry.key) as mine:
        return mine and not in_use(entry.rows)


def _removed(entry: Entry) -> bool:
    with _locked(entry.key) as mine:
        if not mine or in_use(entry.rows):
            return False
        gone = home() / f"{_GONE}{entry.key}"
        try:
            shutil.rmtree(gone, ignore_errors=True)
            entry.folder.rename(gone)  # in one step: nobody meets half of it
        except OSError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True


def _tidy() -> None:
    """Delete what runs that ended early have left: half filled, half deleted, torn, and locks."""
    for left in home().glob("*"):
        if whole(left.name) is not None:
            continue
        key = left.name.removeprefix(PARTIAL).removeprefix(_GONE).removeprefix(".").removesuffix(".lock")
        with _locked(key) as mine:  # not what a run is filling now; the lock's own file goes with it
            if mine and left.is_dir() and whole(left.name) is None:
                shutil.rmtree(left, ignore_errors=True)
