"""Real disks that fail, and moments of a run at which something befalls it. Mounting needs root; tests skip without."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.numpy import load_file

from hf_finetune.training.sealed_trainer import SealedTrainer

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
TIMES = ("seconds", "total_seconds", "samples_per_second", "time", "energy_kwh", "emissions_kg", "co2_kg")


def _mounted(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def small_disk(place: Path, size: str = "1m", *options: str) -> Iterator[Path]:
    """A disk of that size (tmpfs) at a folder."""
    place.mkdir(parents=True, exist_ok=True)
    if not _mounted("mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(place)):
        pytest.skip("no tmpfs can be mounted here: needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Drive:
    """A drive with a file system of its own (ext4 in a file) that can fail in the ways of real ones."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "drive.img", folder / "drive"
        self.place.mkdir()
        with self.image.open("wb") as image:
            image.truncate(24 << 20)
        self.there = _mounted("mkfs.ext4", "-q", "-F", str(self.image))
        if not (self.there and self.mount()):
            pytest.skip("no ext4 can be made and mounted here: needs root, mkfs.ext4 and a loop device")

    def mount(self) -> bool:
        """Put it in, again or for the first time; what a broken one had not finished is finished first."""
        _mounted("e2fsck", "-p", str(self.image))
        self.there = _mounted("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place))
        return self.there

    def take_away(self) -> None:
        """As a network drive goes: its folder is there, and empty."""
        subprocess.run(["umount", "-l", str(self.place)], check=True)
        self.there = False

    def make_read_only(self) -> None:
        """By an error of the file system, as happens to disks that wear out."""
        device = subprocess.check_output(["findmnt", "-no", "SOURCE", str(self.place)], text=True).strip()
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")

    def break_down(self) -> None:
        """Every later access gives an input/output error."""
        number = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(number, _SHUTDOWN, struct.pack("I", 1))
        finally:
            os.close(number)

    def repair(self) -> None:
        """Take it out and put it in."""
        if self.there:
            self.take_away()
        for _ in range(50):  # the last open file may just be closing
            _mounted("e2fsck", "-y", str(self.image))
            if self.mount():
                return
            time.sleep(0.1)
        raise RuntimeError("the drive does not come back")


def fill(disk: Path, leave: int = 0) -> Path:
    """A file that takes all of a disk but so many bytes."""
    filler = disk / "filler"
    size = shutil.disk_usage(disk).free - leave
    with filler.open("ab") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), filler.stat().st_size, size)
    return filler


def after_saves(monkeypatch: pytest.MonkeyPatch, saves: int, happens: Callable[[], Any]) -> None:
    """Let something happen when so many checkpoints are written."""
    save, count = SealedTrainer._save_checkpoint, [0]

    def counted(self: Any, *args: Any) -> None:
        save(self, *args)
        count[0] += 1
        if count[0] == saves:
            happens()

    monkeypatch.setattr(SealedTrainer, "_save_checkpoint", counted)


def outcome(folder: Path) -> tuple[dict[str, bytes], dict[str, Any], bytes]:
    """What two equal runs share to the bit: weights, metrics but for times, predictions."""
    metrics = json.loads((Path(folder) / "metrics.json").read_text())
    predictions = pd.read_parquet(Path(folder) / "predictions.parquet").to_json(double_precision=15).encode()
    return weights_of(folder), without_times(metrics), predictions


def weights_of(folder: Path) -> dict[str, bytes]:
    """All tensors of a finished model, by file and name."""
    files = Path(folder).glob("*.safetensors")
    return {f"{path.name}:{name}": tensor.tobytes() for path in files for name, tensor in load_file(path).items()}


def without_times(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metrics but for what takes time or energy."""
    return {
        split: {name: value for name, value in values.items() if name not in TIMES} for split, values in metrics.items()
    }
