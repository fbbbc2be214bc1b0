"""What was measured on this machine, in small JSON files of the cache: a later run does not measure it again."""

from __future__ import annotations

import json
import os
from typing import Any

from hf_finetune.cache_home import cache_home
from hf_finetune.files import write_whole


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


def _read(file: str) -> dict[str, Any]:
    try:
        values = json.loads((cache_home() / file).read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
