"""The data sets, sizes and checkpoints of the advice benchmark. Several are made from one source, and say which.

A problem is a pool of training rows and a test split in memory, from data of HF_HOME (see `hf_home`'s README), offline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

POOL, TEST = 6_000, 1_000  # rows; test rows are the same for every run
SIZES = (100, 500, 2_000, 5_000)
SIDE = 96  # pixels of every image: a quarter of the work of 224
VIT, MOBILENET, EFFICIENTNET = (
    "WinKawaks/vit-tiny-patch16-224",
    "google/mobilenet_v2_1.0_224",
    "timm/tf_efficientnet_lite0.in1k",
)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
IMAGES, TEXTS = (VIT, MOBILENET, EFFICIENTNET), (MINILM,)


@dataclass(frozen=True)
class Problem:
    """A classification problem.

    Args:
        name: of the problem.
        source: problems of one source are left out of a fit together.
        data: Hub id and configuration, as the home has it; "package:digits" for the small one.
        splits: of training and test.
        classes: of the source that are kept; all if empty.
        task: of the recipe.
        columns: of the recipe's data section.
        change: of every image.
    """

    name: str
    source: str
    data: str
    splits: tuple[str, str] = ("train", "test")
    classes: tuple[int, ...] = ()
    task: str = "image-classification"
    columns: tuple[tuple[str, str], ...] = ()
    change: Callable[[Any], Any] | None = None

    @property
    def checkpoints(self) -> Sequence[str]:
        """Those that the whole grid runs."""
        return IMAGES if self.task == "image-classification" else TEXTS


def degraded(image: Any) -> Any:
    """Eight pixels a side, grey, with noise: little is left of what a checkpoint knows."""
    small = image.convert("L").resize((8, 8))
    pixels = np.asarray(small, dtype=np.float64)
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 25, pixels.shape)
    from PIL import Image

    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).resize((32, 32)).convert("RGB")


_CIFAR, _FASHION = "uoft-cs/cifar10", "zalando-datasets/fashion_mnist"
_TEXT = "text-classification"
PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("cifar10", "cifar10", _CIFAR),
        Problem("cifar animals", "cifar10", _CIFAR, classes=(2, 3, 4, 5, 6, 7)),
        Problem("cifar vehicles", "cifar10", _CIFAR, classes=(0, 1, 8, 9)),
        Problem("cifar degraded", "cifar10", _CIFAR, change=degraded),
        Problem("fashion", "fashion", _FASHION),
        Problem("fashion upper", "fashion", _FASHION, classes=(0, 2, 3, 4, 6)),
        Problem("fashion other", "fashion", _FASHION, classes=(1, 5, 7, 8, 9)),
        Problem("ants and bees", "ants_bees", "local/ants_bees", splits=("train", "validation")),
        Problem("digits", "digits", "package:digits"),
        Problem(
            "sst2", "sst2", "stanfordnlp/sst2", ("train", "validation"), task=_TEXT, columns=(("text", "sentence"),),
        ),
        Problem("ag_news", "ag_news", "fancyzhx/ag_news", task=_TEXT),
        Problem("ag_news two", "ag_news", "fancyzhx/ag_news", classes=(2, 3), task=_TEXT),
        Problem(
            "mrpc", "mrpc", "local/msr_paraphrase", task=_TEXT,
            columns=(("text", "sentence1"), ("text_pair", "sentence2")),
        ),
    )
}  # fmt: skip


def rows_of(problem: Problem) -> Any:
    """A DatasetDict with train and test, at most POOL and TEST rows, drawn once with a fixed seed."""
    from datasets import DatasetDict

    splits = _opened(problem)
    parts = {}
    for name, split, most in (("train", problem.splits[0], POOL), ("test", problem.splits[1], TEST)):
        rows = splits[split]
        if problem.classes:
            labels = np.asarray(rows["label"][:])
            rows = rows.select(np.flatnonzero(np.isin(labels, problem.classes)))
        rows = rows.shuffle(seed=0).select(range(min(most, len(rows))))
        parts[name] = _changed(rows, problem)
    return DatasetDict(parts)


def _opened(problem: Problem) -> Any:
    if problem.data.startswith("package:"):
        from hf_finetune.data.packages import read_package

        return read_package(problem.data.removeprefix("package:"))
    from datasets import load_dataset

    return load_dataset(problem.data)


def _changed(rows: Any, problem: Problem) -> Any:
    """Images changed where the problem says so; classes by the names that are left, in order."""
    from datasets import ClassLabel

    if problem.change is not None:
        column = next(name for name, feature in rows.features.items() if type(feature).__name__ == "Image")
        change = problem.change
        rows = rows.map(lambda row: {column: change(row[column])}, load_from_cache_file=False)
    if problem.classes:
        names = [rows.features["label"].names[each] for each in problem.classes]
        places = {each: place for place, each in enumerate(problem.classes)}
        labels = [places[each] for each in rows["label"][:]]
        rows = rows.remove_columns("label").add_column("label", labels).cast_column("label", ClassLabel(names=names))
    return rows


def recipe_of(problem: Problem, checkpoint: str, size: int, seed: int, output_dir: str) -> dict[str, Any]:
    """The recipe of a cell but for its strategy, rate and epochs."""
    model: dict[str, Any] = {"checkpoint": checkpoint}
    data: dict[str, Any] = {"dataset": "memory:", "max_train_samples": size, "augment": "none", **dict(problem.columns)}
    if problem.task == "image-classification":
        model["image_size"] = SIDE
    else:
        data["max_length"] = 64
    return {
        "task": problem.task,
        "model": model,
        "data": data,
        "training": {"per_device_eval_batch_size": 100},
        "evaluation": {"metrics": ["accuracy"], "bootstrap": 200},
        "seed": seed,
        "output_dir": output_dir,
    }
