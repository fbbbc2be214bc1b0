"""Pixels that were made once and are wanted again: kept in a file, from the second time a row is read.

The second time, because then a third is likely: a single epoch, or one pass that fills another cache, writes nothing.
The file is read by `pread` and not mapped: its pages never count as the process's memory, however many rows there are,
and a copy is cheaper than the page faults of a mapping. It is one run's own, grows as rows come, is shared by the
loader's workers, and goes with the process that made it.
"""

from __future__ import annotations

import os
import shutil
import socket
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from huggingface_hub.constants import HF_HOME

_ENDING = ".pixels"
_SHARE_OF_DISK = 0.25  # of what is free when the run begins
_MOST_BYTES = 64 * 2**30


class PixelStore:
    """Arrays of uint8 by row, of any three sizes each; thread-safe for distinct rows, and for several processes.

    Args:
        rows: how many there are.
        budget: bytes that are kept at most; a quarter of the free disk if None.
        folder: of the file; in the Hugging Face home if None.
    """

    def __init__(self, rows: int, budget: int | None = None, folder: Path | None = None) -> None:
        self._folder = folder or Path(HF_HOME) / "hf_finetune" / "pixels"
        self._path = self._folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}{_ENDING}"
        self._budget = budget
        # Place in the file, then (height, width, channels); -2 not read yet, -1 read once.
        self._index = torch.full((rows, 4), -2, dtype=torch.int64).share_memory_()
        self._open: tuple[int, int] | None = None  # process, file descriptor
        self._full = False
        weakref.finalize(self, _remove, self._path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def __del__(self) -> None:
        if self._open is not None and self._open[0] == os.getpid():
            os.close(self._open[1])

    def get(self, row: int) -> np.ndarray | None:
        """The array of a row, its own copy; None where there is none yet."""
        place, *shape = self._index[row].tolist()
        if place < 0:
            return None
        array = np.empty(shape, np.uint8)
        return array if os.preadv(self._file(), [array.data], place) == array.nbytes else None

    def put(self, row: int, array: np.ndarray) -> None:
        """Keep the array of a row that was read before; of one that was not, only that it was."""
        place = int(self._index[row, 0])
        if place == -2:
            self._index[row, 0] = -1
        elif place == -1 and not self._full:
            self._append(row, array)

    def _append(self, row: int, array: np.ndarray) -> None:
        try:
            file = self._file()
            if os.fstat(file).st_size + array.nbytes > self._bytes():
                self._full = True
                return
            # Appended whole in one call, whoever else appends; the place is then this process's own position.
            written = os.write(file, array.tobytes())
            place = os.lseek(file, 0, os.SEEK_CUR) - written
        except OSError:  # no room on the disk, or a home that cannot be written to: work goes on without
            self._full = True
            return
        if written == array.nbytes:
            self._index[row, 1:] = torch.tensor(array.shape)
            self._index[row, 0] = place

    def _file(self) -> int:
        if self._open is None or self._open[0] != os.getpid():  # a worker has a position of its own
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                _clean(self._folder)
            self._open = os.getpid(), os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        return self._open[1]

    def _bytes(self) -> int:
        if self._budget is None:
            self._budget = min(int(_SHARE_OF_DISK * shutil.disk_usage(self._folder).free), _MOST_BYTES)
        return self._budget


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(OSError):
            path.unlink()


def _clean(folder: Path) -> None:
    """Remove what processes of this machine left that were killed."""
    for path in folder.glob(f"{socket.gethostname()}-*{_ENDING}"):
        owner = path.name.removeprefix(f"{socket.gethostname()}-").partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            _remove(path, os.getpid())
