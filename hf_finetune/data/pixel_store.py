"""Pixels that were made once and are wanted again: kept in a file, from the second time a row is read.

The second time, because then a third is likely: a single epoch, or one pass that fills another cache, writes nothing.
The file is read by `pread` and not mapped: its pages never count as the process's memory, however many rows there are,
and a copy is cheaper than the page faults of a mapping. It is one run's own, grows as rows come, is shared by the
loader's workers, and goes with the process that made it. That process alone makes it: made again by a worker, the file
would not hold what the index says.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_finetune.cache_home import cache_home

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

POSSIBLE = fcntl is not None and hasattr(os, "preadv")  # else nothing is kept: locks and reads need both
_ENDING = ".pixels"
_SHARE_OF_DISK = 0.25  # of what is free when the run begins, for all stores of a machine's run together
_STORES = 3  # of a process: training, validation, test
_SHARE_KEPT_FREE = 0.5  # of what is free when the run begins, whoever else writes
_MOST_BYTES = 64 * 2**30
_BYTES_BETWEEN_CHECKS = 16 * 2**20
_SECONDS_TO_LOCK = 300.0  # a younger file may be one whose owner is about to lock it


class PixelStore:
    """Arrays of uint8 by row, of any three sizes each; thread-safe for distinct rows, and for several processes.

    Args:
        rows: how many there are.
        budget: bytes that are kept at most; this store's part of a quarter of the free disk if None.
        folder: of the file; in the Hugging Face home if None.
        kept_free: bytes of the disk that are left to others; half of what is free now if None.
    """

    def __init__(
        self, rows: int, budget: int | None = None, folder: Path | None = None, kept_free: int | None = None
    ) -> None:
        folder = folder or cache_home() / "pixels"
        self._path = folder / f"{uuid.uuid4().hex}{_ENDING}"
        # Place in the file, then (height, width, channels); -2 not read yet, -1 read once.
        self._index = torch.full((rows, 4), -2, dtype=torch.int64).share_memory_()
        self._open: _File | None = None
        self._full = self._lost = False  # nothing more is written; nothing can be read either
        self._unchecked = _BYTES_BETWEEN_CHECKS  # written since the disk was looked at
        self._budget = self._kept_free = 0
        self._made: tuple[int, int] | None = None  # device and inode
        if not POSSIBLE:
            self._full = self._lost = True
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _clean(folder)
            free = shutil.disk_usage(folder).free
            self._budget = _part_of(free) if budget is None else budget
            self._kept_free = int(_SHARE_KEPT_FREE * free) if kept_free is None else kept_free
            self._open = _File(self._path, os.O_CREAT | os.O_EXCL)
        except OSError:  # a home that cannot be written to: work goes on without
            self._full = self._lost = True
            return
        self._made = self._open.identity
        weakref.finalize(self, _remove, self._path, os.getpid())
        with suppress(OSError):  # without locks on this disk nobody takes the file for a leftover either
            fcntl.flock(self._open.number, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def get(self, row: int) -> np.ndarray | None:
        """The array of a row, its own copy; None where there is none yet, or it cannot be read."""
        place, *shape = self._index[row].tolist()
        if place < 0 or (file := self._file()) is None:
            return None
        array = np.empty(shape, np.uint8)
        with suppress(OSError):
            if os.preadv(file.number, [array.data], place) == array.nbytes:
                return array
        return None

    def put(self, row: int, array: np.ndarray) -> None:
        """Keep the array of a row that was read before; of one that was not, only that it was.

        What is not uint8 of three sizes is not kept.
        """
        if array.dtype != np.uint8 or array.ndim != 3:
            return
        place = int(self._index[row, 0])
        if place == -2:
            self._index[row, 0] = -1
        elif place == -1 and not self._full and (file := self._file()) is not None:
            self._append(file, row, array)

    def _append(self, file: _File, row: int, array: np.ndarray) -> None:
        try:
            with file.lock:
                if not self._has_room(file, array.nbytes):
                    self._full = True
                    return
                # Appended whole in one call, whoever else appends; the place is then this process's own position.
                written = os.write(file.number, array.tobytes())
                place = os.lseek(file.number, 0, os.SEEK_CUR) - written
        except OSError:  # no room on the disk: work goes on without
            self._full = True
            return
        if written == array.nbytes:
            self._index[row, 1:] = torch.tensor(array.shape)
            self._index[row, 0] = place

    def _has_room(self, file: _File, size: int) -> bool:
        if os.fstat(file.number).st_size + size > self._budget:
            return False
        self._unchecked += size
        if self._unchecked < _BYTES_BETWEEN_CHECKS:
            return True
        self._unchecked = 0
        disk = os.fstatvfs(file.number)
        return disk.f_bavail * disk.f_frsize - size >= self._kept_free

    def _file(self) -> _File | None:
        """The file as this process opened it; None where it is gone, or is another by now."""
        file = self._open
        if self._lost or (file is not None and file.process == os.getpid()):
            return None if self._lost else file
        try:  # a worker has a position of its own
            file = _File(self._path)
        except OSError:
            file = None
        if file is None or file.identity != self._made:
            self._full = self._lost = True
            return None
        self._open = file
        return file


class _File:
    """An open file of one process: its number, its identity on the disk, a lock for its position."""

    def __init__(self, path: Path, flags: int = 0) -> None:
        self.number = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600)
        self.process = os.getpid()
        weakref.finalize(self, _close, self.number, self.process)
        found = os.fstat(self.number)
        self.identity = found.st_dev, found.st_ino
        self.lock = threading.Lock()


def _close(number: int, process: int) -> None:
    if os.getpid() == process:
        with suppress(OSError):
            os.close(number)


def _part_of(free: int) -> int:
    """What one store may take of so many bytes, beside the other stores of this and the machine's other processes."""
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(int(_SHARE_OF_DISK * free) // (processes * _STORES), _MOST_BYTES)


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(OSError):
            path.unlink()


def _clean(folder: Path) -> None:
    """Remove what killed processes left: their locks went with them, on whatever machine they were."""
    for path in folder.glob(f"*{_ENDING}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < _SECONDS_TO_LOCK:
                continue
            file = _File(path)
            fcntl.flock(file.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
