"""Entries of features: found by key, checked, listed; whole or not there.

`prefix/KEY/` in `cache_home()` holds `rows.bin`, the numbers alone, and `meta.json`, which is written last.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash
from filelock import FileLock

from hf_finetune.cache_home import cache_home
from hf_finetune.disk import size_in_words
from hf_finetune.prefix_store.locks import hold

if TYPE_CHECKING:
    import torch

_PIECE = 256 << 10  # bytes read at a time
_IN_MEMORY = 256 << 20
PARTIAL = ".partial-"  # before the key of an entry that is being filled


@dataclass(frozen=True)
class Meta:
    """What an entry holds.

    Args:
        what: in words, for the list.
        rows: samples, or of texts of which every token is kept, tokens.
        sizes: of one row.
        dtype: float32, bfloat16 or float16.
        checksum: of the numbers.
    """

    what: str
    rows: int
    sizes: tuple[int, ...]
    dtype: str
    checksum: str = ""

    @property
    def bytes(self) -> int:
        """Size on disk."""
        size = self.rows * (4 if self.dtype == "float32" else 2)
        for each in self.sizes:
            size *= each
        return size


@dataclass(frozen=True)
class Entry:
    """One set of features."""

    folder: Path
    meta: Meta

    @property
    def key(self) -> str:
        """What it was found by."""
        return self.folder.name

    @property
    def rows(self) -> Path:
        """The file of its numbers."""
        return self.folder / "rows.bin"

    @property
    def last_used(self) -> float:
        """Seconds since 1970; 0 where it has just been deleted."""
        try:
            return (self.folder / "meta.json").stat().st_mtime
        except OSError:
            return 0.0

    def in_words(self) -> str:
        """One line of the list: key, size, days since the last use, what it is."""
        days = (time.time() - self.last_used) / 86400
        values = " x ".join(f"{size:,}" for size in (self.meta.rows, *self.meta.sizes))
        size = size_in_words(self.meta.bytes)
        return f"{self.key[:12]}  {size:>8}  used {days:.0f} days ago  {values}  {self.meta.what}"

    def tensor(self, device: torch.device | None = None) -> torch.Tensor:
        """The features, (rows, ...): in memory or on the device where they are small, else mapped from the file.

        As long as what is mapped lives, the entry counts as used.
        """
        import torch

        found = mapped(self.rows, self.meta, shared=False)
        if device is not None and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self.meta.bytes < free // 4:
                return found.to(device)
        if self.meta.bytes <= _IN_MEMORY:
            return found.clone()
        hold(self.rows, found)
        return found


class Found(NamedTuple):
    """What `find` has found.

    Args:
        entry: None where there is none.
        damaged: whether there was one, whole or in part, which is not what was written; it is deleted.
    """

    entry: Entry | None
    damaged: bool = False


def mapped(file: Path, meta: Meta, *, shared: bool) -> torch.Tensor:
    """The file's numbers as a tensor (rows, ...); where shared, what is written goes to the file."""
    import torch

    count = meta.rows
    for size in meta.sizes:
        count *= size
    kind = getattr(torch, meta.dtype)
    return torch.from_file(str(file), shared=shared, size=count, dtype=kind).view(meta.rows, *meta.sizes)


def home() -> Path:
    """The folder of all entries."""
    return cache_home() / "prefix"


def find(key: str) -> Found:
    """The entry of a key, every byte of it as it was written; a damaged one is deleted. The key's lock is held."""
    folder = home() / key
    entry = _read(folder)
    if entry is None or checksum(entry.rows, entry.meta.bytes) != entry.meta.checksum:
        damaged = os.path.lexists(folder)
        drop(folder)
        return Found(None, damaged)
    with suppress(OSError):  # another user's: it can be read all the same
        os.utime(folder / "meta.json")
    return Found(entry)


def drop(folder: Path) -> None:
    """Delete an entry that is not right; the key's lock is held. Who has it open keeps it; another user's stays."""
    shutil.rmtree(folder, ignore_errors=True)


def known(key: str, meta: Meta) -> bool:
    """Whether there seems to be an entry of that size; `find` looks closer."""
    entry = _read(home() / key)
    return entry is not None and entry.meta.bytes == meta.bytes


def stays(key: str) -> bool:
    """Whether there is still something under a key, right or not: what `drop` could not delete."""
    return os.path.lexists(home() / key)


def whole(key: str) -> Entry | None:
    """The entry of a key that has just been found or written."""
    return _read(home() / key)


def lock_of(key: str) -> FileLock:
    """The lock of a key, not yet taken: held while its entry is found, filled, opened or deleted."""
    return FileLock(home() / f".{key}.lock")


def partial(key: str) -> Path:
    """Where an entry is being filled."""
    return home() / f"{PARTIAL}{key}"


def entries() -> list[Entry]:
    """All whole entries, the latest used first."""
    found = [entry for folder in home().glob("*") if (entry := _read(folder)) is not None]
    return sorted(found, key=lambda entry: -entry.last_used)


def begin(key: str, meta: Meta) -> Path:
    """A folder beside the place of an entry, with a file of its size to be filled.

    Raises:
        OSError: there is no room for it; nothing is left.
    """
    abandon(key)  # the key's lock is held: what lies there was left by a run that ended early
    folder = partial(key)
    try:
        folder.mkdir(parents=True)
        with (folder / "rows.bin").open("wb") as file:
            file.truncate(meta.bytes)
            if meta.bytes and hasattr(os, "posix_fallocate"):
                # A disk that fills up under a memory map kills the process without a word: take the room now.
                os.posix_fallocate(file.fileno(), 0, meta.bytes)
    except BaseException:
        abandon(key)
        raise
    return folder


def abandon(key: str) -> None:
    """Delete what was filled of an entry that will not be finished; the key's lock is held."""
    shutil.rmtree(partial(key), ignore_errors=True)


def finish(key: str, filled: Path, meta: Meta) -> Entry:
    """Write down what the filled folder holds and put it into its place."""
    values: dict[str, Any] = {**asdict(meta), "checksum": checksum(filled / "rows.bin", meta.bytes)}
    (filled / "meta.json").write_text(json.dumps(values, indent=1))
    for file in filled.iterdir():  # to the disk before the name: a power cut leaves a whole entry or none
        with file.open("rb+") as written:
            os.fsync(written.fileno())
    folder = home() / key
    shutil.rmtree(folder, ignore_errors=True)
    filled.rename(folder)
    found = _read(folder)
    assert found is not None
    return found


def checksum(file: Path, size: int) -> str:
    """64 bits (XXH3) of the whole file and its length: several GB a second, where CRC-32 takes about one."""
    digest = xxhash.xxh3_64(str(size).encode())
    piece = memoryview(bytearray(_PIECE))
    try:
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(piece):
                digest.update(piece[:count])
    except OSError:
        return "missing"
    return digest.hexdigest()


def _read(folder: Path) -> Entry | None:
    try:
        values = json.loads((folder / "meta.json").read_text())
        meta = Meta(**{**values, "sizes": tuple(values["sizes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None if folder.name.startswith(".") else Entry(folder, meta)
