"""The problems that contestants are set: one data set as parquet files and one checkpoint, the same for all."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from arena import HERE, Contestant


@dataclass(frozen=True)
class Problem:
    """Data, checkpoint and what is done with them.

    Args:
        task: "image-classification" or "text-classification".
        dataset: Hub id.
        rows: of train and test, drawn with a seed; None for all.
        splits: names of train and test.
        column: with the images or texts.
        checkpoint: Hub id.
        strategy: full, head, freeze or lora.
        train_blocks: of freeze.
        epochs: passes over train.
        batch_size: samples a step.
        learning_rate: for every contestant.
        data: folder of the parquet files, once they are written.
    """

    task: str
    dataset: str
    rows: tuple[int | None, int | None]
    splits: tuple[str, str]
    column: str
    checkpoint: str
    strategy: str = "full"
    train_blocks: int = 2
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-4
    data: Path = Path()

    @property
    def is_text(self) -> bool:
        """Whether it reads texts."""
        return self.task == "text-classification"

    def script(self, name: str, *flags: str) -> tuple[str, ...]:
        """The command of a contestant's script."""
        return (
            str(HERE / f"{name}.py"),
            *("--data", str(self.data), "--checkpoint", self.checkpoint, "--out", "{out}"),
            *("--strategy", self.strategy, "--train-blocks", str(self.train_blocks), "--epochs", str(self.epochs)),
            *("--batch-size", str(self.batch_size), "--learning-rate", str(self.learning_rate), *flags),
        )

    def contestant(self, label: str, script: str, *flags: str) -> Contestant:
        """A script as a contestant."""
        return Contestant(label, self.script(script, *flags), self.batch_size)

    def one_epoch_of(self, label: str, script: str, *flags: str) -> Contestant:
        """A script as a contestant of whose epochs one is run, and counts for all."""
        one = replace(self, epochs=1).contestant(f"{label}, 1 of {self.epochs} epochs", script, *flags)
        return replace(one, times=self.epochs)

    def recipe(self, **data: Any) -> dict[str, Any]:
        """The recipe of the same work for hf_finetune.

        Validation after every epoch is on the test rows, and no further test: it is what the other contestants do,
        and the documentation's scripts. `data` goes over the recipe's own data section.
        """
        strategy: dict[str, Any] = {"kind": self.strategy}
        if self.strategy == "freeze":
            strategy["train_blocks"] = self.train_blocks
        files = {name: str(self.data / f"{name}.parquet") for name in ("train", "test")}
        section: dict[str, Any] = {"dataset": files, "validation": "test", "test_split": None, "label": "label"}
        section |= {"text": "text", "max_length": 128} if self.is_text else {"image": "image", "augment": "none"}
        return {
            "task": self.task,
            "model": {"checkpoint": self.checkpoint},
            "data": section | data,
            "strategy": strategy,
            "training": {
                "num_train_epochs": self.epochs,
                "learning_rate": self.learning_rate,
                "per_device_train_batch_size": self.batch_size,
            },
        }

    def ours(self, label: str, work: Path, *overrides: str, warm: bool = False, **data: Any) -> Contestant:
        """The public command on this problem's recipe."""
        words = f"{self.strategy} {Path(self.checkpoint).name} {self.data.name} {label}".lower()
        file = work / f"{re.sub('[^a-z0-9]+', '-', words)}.yaml"
        file.write_text(yaml.safe_dump(self.recipe(**data), sort_keys=False), encoding="utf-8")
        command = ("-m", "hf_finetune.run", f"recipe={file}", *overrides, "output_dir={work}/run")
        return Contestant(label, command, self.batch_size, warm)


def cifar10(train: int | None, test: int | None, **more: Any) -> Problem:
    """CIFAR-10 by ViT-Tiny at 224 px."""
    return Problem(
        task="image-classification",
        dataset="uoft-cs/cifar10",
        rows=(train, test),
        splits=("train", "test"),
        column="img",
        checkpoint="WinKawaks/vit-tiny-patch16-224",
        **more,
    )


def sst2(train: int, **more: Any) -> Problem:
    """SST-2 by MiniLM; its validation split scores."""
    return Problem(
        task="text-classification",
        dataset="stanfordnlp/sst2",
        rows=(train, None),
        splits=("train", "validation"),
        column="sentence",
        checkpoint="sentence-transformers/all-MiniLM-L6-v2",
        **more,
    )


def prepared(problem: Problem, scale: str, work: Path) -> Problem:
    """The problem with its files written; at toy scale small stand-ins that need no network."""
    work.mkdir(parents=True, exist_ok=True)
    if scale == "toy":
        from toys import toy

        return toy(problem, work)
    name = f"{problem.dataset.split('/')[-1]}-{problem.rows[0]}-{problem.rows[1]}"
    folder = (work / name).resolve()
    if not (folder / "test.parquet").is_file():
        from datasets import load_dataset

        folder.mkdir(parents=True, exist_ok=True)
        for split, role, rows in zip(problem.splits, ("train", "test"), problem.rows, strict=True):
            drawn = load_dataset(problem.dataset, split=split)
            drawn = drawn if rows is None else drawn.shuffle(seed=0).select(range(rows)).flatten_indices()
            content = "text" if problem.is_text else "image"
            drawn = drawn.select_columns([problem.column, "label"])
            if problem.column != content:
                drawn = drawn.rename_column(problem.column, content)
            drawn.to_parquet(folder / f"{role}.parquet")
    return replace(problem, data=folder)
