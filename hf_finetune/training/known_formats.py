"""Number formats that were measured before, by model, who learns, and hardware: a second run starts at once, and alike.

Alike matters: features that a run keeps are those of its number format, and another choice could not use them.
"""

from __future__ import annotations

import hashlib
import json
import platform
from typing import TYPE_CHECKING

import torch

from hf_finetune.evaluation.products import library_in_use
from hf_finetune.model.attention import attention_in_use
from hf_finetune.training.prefix_key import settings_of
from hf_finetune.training.remembered import recall, remember

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer

_FILE = "formats.json"


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


def recall_format(key: str) -> tuple[str, str, bool] | None:
    """The format found before, in words, and whether channels lie last; None where nothing was measured."""
    try:
        name, words, channels_last = recall(_FILE, key)
    except (TypeError, ValueError):
        return None
    return str(name), f"{words}, measured before", bool(channels_last)


def remember_format(key: str, found: tuple[str, str, bool]) -> None:
    """Write it down."""
    remember(_FILE, key, found)
