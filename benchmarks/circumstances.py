"""Date, versions and hardware in words: what a reader needs to judge a result, and nothing of the machine's name."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "datasets", "peft", "timm", "scikit-learn", "numpy")


@functools.lru_cache
def circumstances() -> dict[str, Any]:
    """Date (UTC), versions (with the commit of this repository, where there is one) and hardware."""
    return {"date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}", **_versions(), "hardware": hardware()}


def hardware() -> str:
    """The processor's model, cores and memory, and the GPUs where there are any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return ", ".join([f"{_processor()}, {cores} core{'s' * (cores != 1)}, {memory:.0f} GiB", *_gpus()])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    values = {name.strip(): value.strip() for name, value in pairs}
    name = values.get("model name") or platform.processor() or platform.machine()
    flags = values.get("flags", "").split()
    bf16 = [word for flag, word in (("amx_bf16", "AMX-bf16"), ("avx512_bf16", "AVX512-bf16")) if flag in flags]
    return f"{name} (family {values.get('cpu family', '?')}; {' and '.join(bf16) or 'no native bf16'})"


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in found]


def _versions() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"versions": {"python": platform.python_version(), **versions}, "commit": _commit()}


def _commit() -> str:
    """The commit of this repository, with a plus where files of the package differ from it."""
    here = Path(__file__).resolve().parent.parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "hf_finetune"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")
