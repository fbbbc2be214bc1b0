"""Small data with two label columns, and runs of several tasks on tiny models."""

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

KIND = {"label": "kind"}
SIZE = {"label": "size", "metrics": ["mae", "r2"]}


def rows(text: bool, size: int = 40, seed: int = 0, missing: bool = False) -> Dataset:
    """Images whose colour, or texts whose words, tell `kind` (a, b) and `size` (around 50); some labels may lack."""
    generator = np.random.default_rng(seed)
    levels = generator.random(size)
    columns: dict[str, list[Any]] = {}
    if text:
        columns["text"] = [" ".join(f"w{3 + int(level * 40) + n}" for n in range(5)) for level in levels]
    else:
        noise = generator.integers(0, 20, (size, 32, 32, 3))
        pixels = (levels[:, None, None, None] * 230 + noise).astype(np.uint8)
        columns["image"] = [PIL.Image.fromarray(image) for image in pixels]
    columns["kind"] = ["ab"[int(level > 0.5)] for level in levels]
    columns["size"] = [50.0 + 20.0 * float(level) for level in levels]
    if missing:
        columns["kind"] = [None if row % 3 == 0 else value for row, value in enumerate(columns["kind"])]
        columns["size"] = [None if row % 3 == 1 else value for row, value in enumerate(columns["size"])]
    return Dataset.from_dict(columns)


def splits(text: bool, **options: Any) -> DatasetDict:
    return DatasetDict({"train": rows(text, **options), "test": rows(text, size=18, seed=1)})


def recipe_for(folder: Path, family: str, tasks: dict[str, Any] | None, *pairs: str, name: str = "run") -> Recipe:
    """A recipe of a tiny model of that family; without tasks the label is `kind`."""
    checkpoint = folder / family
    if not checkpoint.exists():
        save_checkpoint(family, checkpoint)
    text = family in TEXT_FAMILIES
    settings: dict[str, Any] = {
        "task": "text-classification" if text else "image-classification",
        "model": {"checkpoint": str(checkpoint)},
        "data": {"dataset": "memory:", "validation": 0.25, "augment": "none", **({"max_length": 16} if text else {})},
        "training": {
            "num_train_epochs": 2, "per_device_train_batch_size": 10, "learning_rate": 0.01, "max_grad_norm": 0,
        },
        "evaluation": {"bootstrap": 20},
        "output_dir": str(folder / name),
    }  # fmt: skip
    if tasks is None:
        settings["data"]["label"] = "kind"
    else:
        settings["tasks"] = tasks
    return Recipe.model_validate(settings).with_overrides(*pairs) if pairs else Recipe.model_validate(settings)


def run_of(folder: Path, family: str, tasks: dict[str, Any] | None, *pairs: str, name: str = "run", **data: Any) -> Run:
    recipe = recipe_for(folder, family, tasks, *pairs, name=name)
    return finetune(recipe, data=data.get("data") or splits(family in TEXT_FAMILIES, **data), precision="no")
