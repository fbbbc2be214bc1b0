"""Runs of tiny models for the tests of the page: classes, labels, numbers, several tasks; images and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from datasets import Dataset, DatasetDict
from model_samples import TEXT_FAMILIES, save_checkpoint

from hf_finetune import finetune
from hf_finetune.recipes.schema import Recipe
from hf_finetune.runs import Run

EVIL = "<script>window.evil = 1</script>"


def rows(text: bool, label: str, size: int, seed: int) -> Dataset:
    """Images whose colour, or texts whose words, tell a class ("kind"), labels ("tags") or a number ("size")."""
    generator = np.random.default_rng(seed)
    levels = generator.random(size)
    columns: dict[str, list[Any]] = {}
    if text:
        words = [
            " ".join(f"w{3 + int(level * 40) + n}" for n in range(3 + row % 6)) for row, level in enumerate(levels)
        ]
        columns["text"] = [f"{EVIL} {one}" for one in words]
    else:
        noise = generator.integers(0, 20, (size, 32, 32, 3))
        pixels = (levels[:, None, None, None] * 230 + noise).astype(np.uint8)
        columns["image"] = [PIL.Image.fromarray(image) for image in pixels]
    if label == "kind":
        columns["kind"] = [("dark", EVIL, "light")[min(2, int(level * 3))] for level in levels]
    elif label == "tags":
        columns["tags"] = [["bright"] * int(x > 0.5) + ["far"] * int(abs(x - 0.5) > 0.2) or ["none"] for x in levels]
    else:
        columns["size"] = [50.0 + 20.0 * float(level) for level in levels]
    columns["camera"] = [("old", "new")[row % 2] for row in range(size)]
    return Dataset.from_dict(columns)


def run_of(
    folder: Path, family: str, label: str = "kind", *pairs: str, name: str = "run", save_data: bool = False
) -> Run:
    """A run of two epochs on a tiny model of that family.

    Args:
        folder: for the checkpoint, the data and the run.
        family: of `model_samples`.
        label: kind, tags or size.
        pairs: laid over the recipe.
        name: of the run's folder.
        save_data: the data lies in parquet files, so that a later command finds it.
    """
    checkpoint = folder / family
    if not checkpoint.exists():
        save_checkpoint(family, checkpoint)
    text = family in TEXT_FAMILIES
    splits = DatasetDict({"train": rows(text, label, 40, 0), "test": rows(text, label, 30, 1)})
    if save_data:
        (folder / "data").mkdir(exist_ok=True)
        for split, own in splits.items():
            own.to_parquet(folder / "data" / f"{split}.parquet")
    settings: dict[str, Any] = {
        "task": "text-classification" if text else "image-classification",
        "model": {"checkpoint": str(checkpoint)},
        "data": {
            "dataset": str(folder / "data") if save_data else "memory:", "label": label, "validation": 0.25,
            "augment": "none", **({"max_length": 16, "text": "text"} if text else {"image": "image"}),
        },
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 10, "learning_rate": 0.01},
        "evaluation": {"bootstrap": 20},
        "output_dir": str(folder / name),
    }  # fmt: skip
    recipe = Recipe.model_validate(settings)
    recipe = recipe.with_overrides(*pairs) if pairs else recipe
    return finetune(recipe, data=None if save_data else splits, precision="no")
