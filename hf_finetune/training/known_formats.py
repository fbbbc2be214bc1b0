"""Number formats that were measured before, by model, who learns, and hardware: a second run starts at once, and alike.

Alike matters: features that a run keeps are those of its number format, and another choice could not use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from hf_finetune.evaluation.products import library_in_use
from hf_finetune.model.attention import attention_in_use
from hf_finetune.remembered import FORMATS, processor, recall, remember
from hf_finetune.training.prefix_key import settings_of

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer


def key_of_format(trainer: FinetuneTrainer, batch: Mapping[str, torch.Tensor], given: str) -> str:
    """What the fastest format depends on; heads are small beside what stands before them.

    Args:
        trainer: before training.
        batch: a typical one, for the size of its samples; of tokens, within a factor of two.
        given: what the user leaves open.
    """
    device = trainer.args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    capability = "" if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    facts = (
        settings_of(trainer.applied.model),
        sorted(trainer.applied.learns.items()),
        (name, capability, torch.get_num_threads(), torch.__version__, library_in_use()),
        attention_in_use(trainer.applied.model),
        (trainer.args.train_batch_size, given),
        sorted((name, _size(values)) for name, values in batch.items() if hasattr(values, "shape")),
    )
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def _size(values: torch.Tensor) -> tuple[int, ...]:
    sizes = tuple(values.shape[1:])
    return tuple(1 << (size - 1).bit_length() for size in sizes) if len(sizes) == 1 else sizes


def recall_format(key: str) -> tuple[str, str, bool] | None:
    """The format found before, in words, and whether channels lie last; None where nothing was measured."""
    try:
        name, words, channels_last = recall(FORMATS, key)
    except (TypeError, ValueError):
        return None
    return str(name), f"{words}, measured before", bool(channels_last)


def remember_format(key: str, found: tuple[str, str, bool]) -> None:
    """Write it down."""
    remember(FORMATS, key, found)
