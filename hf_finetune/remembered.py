"""What was measured on this machine, in small JSON files of the cache: a later run does not measure it again."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hf_finetune.cache_home import cache_home
from hf_finetune.files import write_whole

FORMATS, KERNELS = "formats.json", "kernels.json"  # of `training/known_formats.py`, `training/known_kernels.py`


def recall(file: str, key: str) -> Any:
    """What was found before; None where nothing was, or the file cannot be read.

    Args:
        file: its name in the cache.
        key: all that the finding depends on.
    """
    return _read(file).get(key)


def remember(file: str, key: str, found: Any) -> None:
    """Write it down; where the cache cannot be written, the next run measures again."""
    path = cache_home() / file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.access(path.parent, os.W_OK):
            write_whole(path, json.dumps({**_read(file), key: found}, indent=1))
    except OSError:
        return


def forget() -> None:
    """Delete all of it, but for what another user keeps in a folder that is shared: the next runs measure again."""
    for name in (FORMATS, KERNELS):
        with suppress(OSError):
            (cache_home() / name).unlink()


@cache
def processor() -> str:
    """The CPU's model: machines that share a home are not alike. Python itself does not tell it on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    names = (told.get(name) for name in ("model name", "cpu family", "model"))
    return " ".join(filter(None, names)) or platform.processor() or platform.machine()


def _read(file: str) -> dict[str, Any]:
    try:
        values = json.loads((cache_home() / file).read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
