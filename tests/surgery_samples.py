"""Tiny checkpoints loaded with changes of `model:`, saved, and read back by transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from model_samples import TEXT_FAMILIES, batch, save_checkpoint
from strategy_samples import load, recipe_for

from hf_finetune.model import LoadedModel, save_pretrained

NAMES = ["ant", "bee", "cat"]


def changed(family: str, folder: Path, strategy: Any = "full", config: Any = None, **keys: Any) -> LoadedModel:
    """A tiny checkpoint of a family (with `config` changes of its own) in `folder`, loaded with keys of `model:`."""
    if not (folder / "config.json").exists():
        save_checkpoint(family, folder, **(config or {}))
    return load(recipe_for(family, folder, strategy, **keys), NAMES)


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """In eval mode."""
    with torch.no_grad():
        output: torch.Tensor = model.eval()(**{k: v for k, v in inputs.items() if k != "labels"}).logits
    return output


def reloaded(family: str, loaded: LoadedModel, folder: Path) -> tuple[Any, Any]:
    """Model and processor, saved to `folder` and read by transformers' Auto classes."""
    save_pretrained(loaded.model, loaded.processor, folder)
    if family in TEXT_FAMILIES:
        auto, processor = transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer
    else:
        auto, processor = transformers.AutoModelForImageClassification, transformers.AutoImageProcessor
    return auto.from_pretrained(folder), processor.from_pretrained(folder)


def inputs_for(family: str, keys: dict[str, Any], size: int = 3) -> dict[str, torch.Tensor]:
    """A batch of the channels, size or length that the keys ask for."""
    generator = torch.Generator().manual_seed(3)
    given = batch(family, size)
    if "pixel_values" in given:
        side = keys.get("image_size") or given["pixel_values"].shape[-1]
        shape = (size, keys.get("in_channels") or 3, side, side)
        return {"pixel_values": torch.randn(shape, generator=generator), "labels": given["labels"]}
    length = keys.get("max_length", 12)
    ids = torch.randint(3, 50, (size, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": given["labels"]}
