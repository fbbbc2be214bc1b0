"""Disks that fail: whether a fault is theirs, which disk it is, and what to do, in words.

A full disk, a quota, a disk that has become read-only, a drive that has gone. The libraries tell them in their own
ways: Python by `errno`, safetensors by its text, torch's writer of files not at all.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hf_finetune.errors import TransientError, UserError

_GONE = ("does not answer", "See that it is there again (mount, dmesg)")
_CLOSED = ("does not let you (permissions)", "Change the permissions, or give another place")
# What is the matter, and what to do.
_WORDS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("is full", "Free some room on it"),
    errno.EDQUOT: ("has no more room for you: your quota is used up", "Free some room of yours, or raise the quota"),
    errno.EFBIG: ("takes no file of that size (see `ulimit -f`)", "Raise the limit"),
    errno.EROFS: ("is read-only", "Make it writable again (a disk with errors becomes read-only: see dmesg)"),
    **{
        getattr(errno, name): _GONE for name in ("EIO", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN") if hasattr(errno, name)
    },
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}
_OF_TORCH = re.compile("inline_container|PytorchStreamWriter|iostream error|Parent directory")
_PROBE = 1 << 20  # bytes


class DiskError(TransientError):
    """A disk's fault: what could not be done, the disk, and what to do."""


class ClosedDiskError(DiskError):
    """A place that is not open to this user: the same command would end alike."""

    exit_code = UserError.exit_code


def disk_errno(fault: BaseException, place: Path | None = None) -> int | None:
    """The number of a disk's fault, or of the fault behind it; None for any other.

    Args:
        fault: what was raised.
        place: where it was written; tried where the fault itself does not tell.
    """
    seen: BaseException | None = fault
    while seen is not None:
        told = re.search(r"\(os error (\d+)\)", str(seen))  # safetensors, tokenizers
        number = seen.errno if isinstance(seen, OSError) else int(told.group(1)) if told else None
        if number in _WORDS:
            return number
        if place is not None and (_is_torchs(seen) or isinstance(seen, FileNotFoundError | NotADirectoryError)):
            with suppress(OSError):
                if not place.exists():
                    return errno.ENODEV
            return probe(place)  # safetensors finds no file where the disk does not answer
        seen = seen.__cause__
    return None


def probe(place: Path) -> int | None:
    """The number of the fault that a small file meets there now, None where it can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(place), prefix=".probe-") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        return fault.errno if fault.errno in _WORDS else errno.ENODEV
    return None


def disk_error(what: str, number: int, place: Path) -> DiskError:
    """The fault in words.

    Args:
        what: could not be done.
        number: of the fault.
        place: on that disk.
    """
    matter, remedy = _WORDS[number]
    told = f" ({os.strerror(number)})" if _WORDS[number] is _GONE else ""
    kind = ClosedDiskError if _WORDS[number] is _CLOSED else DiskError
    return kind(f"{what}: the disk of {place}, {disk_in_words(place)}, {matter}{told}. {remedy}.")


@contextmanager
def writing(what: str, place: Path, done: str = "written") -> Iterator[None]:
    """What is written inside: a fault of its disk becomes a DiskError.

    Args:
        what: is written, as the subject of a sentence.
        place: the folder that it is written to.
        done: read, where it is read.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as fault:
        number = disk_errno(fault, place)
        if number is None:
            raise
        raise disk_error(f"{what} could not be {done}", number, place) from fault


def of_a_disk(fault: BaseException, places: Sequence[Path]) -> DiskError | None:
    """A fault that came from anywhere as a DiskError, None where no disk is behind it.

    Args:
        fault: what was raised; perhaps it names its file.
        places: where a run writes, for faults that do not.
    """
    number = disk_errno(fault)
    if number is None and any(_is_torchs(seen) for seen in _causes(fault)):
        number = next((found for place in places if (found := probe(place))), None)
    if number is None:
        return None
    named = next((seen.filename for seen in _causes(fault) if isinstance(seen, OSError) and seen.filename), None)
    if isinstance(named, str | bytes | os.PathLike):
        return disk_error("A file could not be read or written", number, Path(os.fsdecode(named)))
    if number in (errno.EACCES, errno.EPERM) or not places:
        return None  # of what cannot be told
    failing = next((place for place in places if probe(place) == number), places[0])
    return disk_error("A file could not be written", number, failing)


def disk_in_words(place: Path) -> str:
    """Where the disk of a place is mounted, what it is, and how much of it is free."""
    mount = _existing(place)
    while not mount.is_mount() and mount != mount.parent:
        mount = mount.parent
    facts = []
    with suppress(Exception):  # what a machine does not tell is left out
        import psutil

        parts = [part for part in psutil.disk_partitions(all=True) if part.mountpoint == str(mount)]
        facts += [f"{part.fstype} {part.device}" for part in parts[-1:]]
    with suppress(OSError):
        usage = shutil.disk_usage(mount)
        facts.append(f"{size_in_words(usage.free)} of {size_in_words(usage.total)} free")
        if hasattr(os, "statvfs") and (files := os.statvfs(mount)).f_files and not files.f_favail:
            facts.append("no more files")
    return f"mounted at {mount} ({', '.join(facts)})" if facts else f"mounted at {mount}"


def size_in_words(size: float) -> str:
    """0 B, 12 kB, 1.9 MB, 454 MB, 2.3 GB."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= power:
            return f"{size / power:.{0 if size >= 10 * power else 1}f} {unit}"
    return f"{size:.0f} B"


class Place:
    """A folder that has to stay what it is: where a drive has gone, an empty folder of its name is left.

    What is written there would be on another disk, and hidden when the drive is back.

    Args:
        path: of the folder, as it is now.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.device: int | None = None
        self._inode: int | None = None  # not the device: a drive that is mounted again may have another
        with suppress(OSError):
            found = self.path.stat()
            self.device, self._inode = found.st_dev, found.st_ino

    def check(self) -> None:
        """Raise a DiskError where it is another folder now, or none."""
        if self._inode is None:
            return
        try:
            if self.path.stat().st_ino == self._inode:
                return
        except OSError as fault:
            if fault.errno in _WORDS:
                raise disk_error(f"{self.path} cannot be read", fault.errno, self.path) from fault
        raise DiskError(
            f"{self.path} is not the folder that it was when the run began: its drive has gone, or somebody has moved "
            f"it. What is there now: {disk_in_words(self.path)}. See that the drive is there again (mount)."
        )


def _is_torchs(fault: BaseException) -> bool:
    """Whether torch could not write a file, and does not say why."""
    return isinstance(fault, RuntimeError) and _OF_TORCH.search(str(fault)) is not None


def _existing(place: Path) -> Path:
    place = place.absolute()
    while place != place.parent:
        with suppress(OSError):
            if place.is_dir():
                break
        place = place.parent
    return place


def _causes(fault: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = fault
    while seen is not None:
        yield seen
        seen = seen.__cause__
