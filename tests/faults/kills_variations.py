"""Small runs of every strategy on images and texts, with what random state there can be in a run."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data_samples import photo
from model_samples import save_checkpoint
from tqdm import tqdm

NAMES = ("ant", "bee", "cat")
ROWS = {"train": 64, "validation": 33, "test": 24}
STRATEGIES = ("head", "freeze", "full", "lora", "lp_ft")
_ALWAYS = (
    "training.per_device_train_batch_size=8",
    "training.per_device_eval_batch_size=16",
    "evaluation.bootstrap=20",
    "data.validation=validation",
)
# Logs and checkpoints at steps that do not meet; in the second, workers, accumulation, an average, early stopping.
_STEPS = (
    "training.num_train_epochs=3",
    *(f"training.{name}_strategy=steps" for name in ("save", "eval")),
    *(f"training.{name}_steps=5" for name in ("save", "eval")),
    "training.logging_steps=2",
    "training.learning_rate=3e-3",
)
_EPOCHS = (
    "training.num_train_epochs=5",
    "training.gradient_accumulation_steps=2",
    "training.logging_steps=3",
    "training.learning_rate=1e-2",
    "average.ema=0.9",
    "evaluation.patience=2",
)
_WORKERS = {("image", "head"), ("image", "full"), ("image", "lp_ft"), ("text", "freeze"), ("text", "lora")}
_KEPT = ("head", "freeze", "lp_ft")  # whose frozen blocks run once
_OWN = {
    ("image", "steps", "full"): ("data.augment={pad_crop: 2, flip: 0.5}", "data.mixup=0.3", "average.soup=greedy"),
    ("image", "steps", "lora"): ("data.augment=basic", "strategy.dropout=0.1"),
    ("image", "steps", "lp_ft"): ("data.augment=none",),
    ("image", "epochs", "lp_ft"): ("data.augment=none",),
    ("image", "epochs", "head"): ("data.augment={flip: 0.5}", "cache.views=2"),
    ("image", "epochs", "freeze"): ("data.augment={rotation: 20}", "cache.prefix=off"),
    ("image", "epochs", "full"): ("data.augment={color_jitter: 0.3, erasing: 0.3}", "data.cutmix=1"),
    ("image", "epochs", "lora"): ("strategy.dropout=0.1", "training.max_steps=13"),
    ("text", "steps", "full"): ("data.augment={word_dropout: 0.2}", "training.logging_strategy=epoch"),
    ("text", "steps", "lora"): ("strategy.dropout=0.1", "training.train_sampling_strategy=group_by_length"),
    ("text", "epochs", "full"): ("loss.sampling=balanced", "training.lr_scheduler_type=cosine"),
    ("text", "epochs", "lora"): ("strategy.dropout=0.1", "training.max_steps=13"),
}


@dataclass(frozen=True)
class Variation:
    """One run.

    Args:
        name: modality, strategy and when it saves.
        arguments: of `hf-finetune`, without its output_dir.
        fills: whether it fills the cache of features.
    """

    name: str
    arguments: tuple[str, ...]
    fills: bool


def variations(folder: Path) -> list[Variation]:
    """All of them; their data and checkpoints are made in a folder."""
    tqdm.monitor_interval = 0  # no thread: there will be forks
    recipes = {"image": _images(folder), "text": _texts(folder)}
    return [
        _variation(modality, strategy, when, recipe)
        for modality, recipe in recipes.items()
        for when in ("steps", "epochs")
        for strategy in STRATEGIES
    ]


def _variation(modality: str, strategy: str, when: str, recipe: Path) -> Variation:
    own = _OWN.get((modality, when, strategy), ())
    kept = strategy in _KEPT and "cache.prefix=off" not in own
    arguments = [
        "train",
        f"recipe={recipe}",
        f"strategy={strategy}",
        *_ALWAYS,
        *(_STEPS if when == "steps" else _EPOCHS),
        *(["cache.prefix=on"] if kept else []),
        *(["training.dataloader_num_workers=2"] if when == "epochs" and (modality, strategy) in _WORKERS else []),
        *own,
    ]
    return Variation(f"{modality} {strategy} {when}", tuple(arguments), kept)


def _recipe(folder: Path, modality: str, checkpoint: Path, data: Path) -> Path:
    path = folder / f"{modality}.yaml"
    path.write_text(
        f"task: {modality}-classification\nmodel: {{checkpoint: {checkpoint}}}\ndata: {{dataset: {data}}}\n"
    )
    return path


def _images(folder: Path) -> Path:
    data = folder / "images"
    for split, rows in ROWS.items():
        for row in range(rows):
            place = data / split / NAMES[row % 3]
            place.mkdir(parents=True, exist_ok=True)
            photo(1000 * len(split) + row).save(place / f"{row}.png")
    return _recipe(folder, "image", save_checkpoint("vit", folder / "vit"), data)


def _texts(folder: Path) -> Path:
    data, rng = folder / "texts", np.random.default_rng(0)
    data.mkdir()
    for split, rows in ROWS.items():
        with (data / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(rows):
                words = rng.integers(3, 50, rng.integers(2, 30))
                writer.writerow([" ".join(f"w{word}" for word in words), NAMES[row % 3]])
    return _recipe(folder, "text", save_checkpoint("bert", folder / "bert"), data)
