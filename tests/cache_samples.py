"""Small runs from a recipe to a folder, with the frozen prefix kept and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from data_samples import photo
from model_samples import TEXT_FAMILIES, save_checkpoint
from safetensors.torch import load_file

from hf_finetune import finetune
from hf_finetune.recipes.schema import Recipe
from hf_finetune.runs import Run

TRAINING = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "dataloader_num_workers": 0}


def images(rows: int, seed: int) -> datasets.Dataset:
    labels = [place % 3 for place in range(rows)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    return datasets.Dataset.from_dict({"image": [photo(seed + n) for n in range(rows)], "label": labels}, features)


def texts(rows: int, seed: int) -> datasets.Dataset:
    rng = np.random.default_rng(seed)
    labels = [place % 3 for place in range(rows)]
    words = [" ".join(f"w{n}" for n in rng.integers(3, 50, rng.integers(2, 20))) for _ in range(rows)]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    return datasets.Dataset.from_dict({"text": words, "label": labels}, features)


def data_for(family: str) -> datasets.DatasetDict:
    """24 training rows, 9 of validation and 10 of test."""
    make = texts if family in TEXT_FAMILIES else images
    return datasets.DatasetDict(train=make(24, 0), validation=make(9, 100), test=make(10, 200))


def recipe_of(folder: Path, family: str, strategy: Any, name: str, **sections: Any) -> Recipe:
    """A recipe on a tiny checkpoint of that family, written to `folder/name`."""
    checkpoint = folder / family
    if not checkpoint.exists():
        save_checkpoint(family, checkpoint)
    values = {
        "task": "text-classification" if family in TEXT_FAMILIES else "image-classification",
        "model": {"checkpoint": str(checkpoint)},
        "data": {"dataset": "none", "validation": "validation"},
        "strategy": strategy,
        "evaluation": {"bootstrap": 0},
        "output_dir": str(folder / name),
        **sections,
    }
    values["training"] = {**TRAINING, **sections.get("training", {})}
    return Recipe.model_validate(values)


def run(folder: Path, family: str, strategy: Any, name: str, precision: str = "no", **sections: Any) -> Run:
    recipe = recipe_of(folder, family, strategy, name, **sections)
    return finetune(recipe, data=data_for(family), precision=precision)


def weights_of(finished: Run) -> dict[str, torch.Tensor]:
    return load_file(finished.path / "model.safetensors")
