"""Number formats that were measured before, by model, who learns, and hardware: a second run starts at once, and alike.

Alike matters: features that a run keeps are those of its number format, and another choice could not use them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune.cache_home import cache_home
from hf_finetune.evaluation.products import library_in_use
from hf_finetune.files import write_whole
from hf_finetune.model.attention import attention_in_use
from hf_finetune.training.prefix_key import settings_of

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer


def key_of_format(trainer: FinetuneTrainer, given: str) -> str:
    """What the fastest format depends on; heads are small beside what stands before them.

    Args:
        trainer: before training.
        given: what the user leaves open.
    """
    device = trainer.args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    capability = "" if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    facts = (
        settings_of(trainer.applied.model),
        sorted(trainer.applied.learns.items()),
        (name, capability, torch.get_num_threads(), torch.__version__, library_in_use()),
        attention_in_use(trainer.applied.model),
        (trainer.args.train_batch_size, given),
    )
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def recall(key: str) -> tuple[str, str, bool] | None:
    """The format found before, in words, and whether channels lie last; None where nothing was measured."""
    try:
        name, words, channels_last = json.loads(_file().read_text())[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(name), f"{words}, measured before", bool(channels_last)


def remember(key: str, found: tuple[str, str, bool]) -> None:
    """Write it down; where the Hugging Face home cannot be written, the next run measures again."""
    try:
        known: dict[str, Any] = json.loads(_file().read_text())
    except (OSError, ValueError):
        known = {}
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        if os.access(_file().parent, os.W_OK):
            write_whole(_file(), json.dumps({**known, key: found}, indent=1))
    except OSError:
        return


def _file() -> Path:
    return cache_home() / "formats.json"
