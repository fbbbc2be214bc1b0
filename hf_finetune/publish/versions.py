"""With what a run was made: versions of the libraries, and the machine in words."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "hf_finetune", "torch", "transformers", "timm", "datasets", "peft", "accelerate", "torchvision", "scikit-learn",
    "numpy",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Python's and the libraries' versions, by name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine_in_words() -> str:
    """Device, cores and system; nothing that names the machine or its user."""
    torch = sys.modules.get("torch")
    device = "CPU"
    if torch is not None and torch.cuda.is_available():
        device = str(torch.cuda.get_device_name())
    elif torch is not None and torch.backends.mps.is_available():
        device = "Apple GPU"
    return f"{device}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
