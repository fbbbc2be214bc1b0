"""Which kernels were the fastest on this machine: measured once, so that a second run is alike to the last bit.

A few milliseconds decide, and on a busy machine they decide now this way, now that. A run that was killed before its
first checkpoint begins anew, and would then end with other last bits than if it had not been killed.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from hf_finetune.cache_home import cache_home
from hf_finetune.console import is_main_process
from hf_finetune.files import write_whole


def known(choice: str, measure: Callable[[], str]) -> str:
    """What was measured before, else what is measured now, which is written down where the cache can be written to.

    Args:
        choice: what is chosen, and what it depends on beside machine, threads and torch.
        measure: gives the choice.
    """
    key = f"{choice}, {_machine()}"
    found = _read().get(key)
    if found is not None:
        return found
    found = measure()
    if is_main_process():
        _remember(key, found)
    return found


def _machine() -> str:
    device = "GPU" if torch.cuda.is_available() or torch.backends.mps.is_available() else "CPU"
    capability = torch.backends.cpu.get_cpu_capability()
    precision = torch.get_float32_matmul_precision()
    return (
        f"{device}, {platform.processor()} {capability}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{precision} precision"
    )


def _read() -> dict[str, str]:
    try:
        values = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _remember(key: str, found: str) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        if os.access(_file().parent, os.W_OK):
            write_whole(_file(), json.dumps({**_read(), key: found}, indent=1))
    except OSError:
        return


def _file() -> Path:
    return cache_home() / "kernels.json"
