"""Checkpoints: loading, anatomy, heads, saving. Imported late: everything in here needs torch."""

from __future__ import annotations

from hf_finetune.model.anatomy import Anatomy, Part, find_anatomy
from hf_finetune.model.checkpoint import LoadedModel, load_pretrained, resolve_checkpoint
from hf_finetune.model.saving import load_finished, save_pretrained

__all__ = [
    "Anatomy",
    "LoadedModel",
    "Part",
    "find_anatomy",
    "load_finished",
    "load_pretrained",
    "resolve_checkpoint",
    "save_pretrained",
]
