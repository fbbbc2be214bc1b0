"""Stand-ins of a few rows and small models, so that every script here can be tried anywhere, without a network."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arena import HERE

if TYPE_CHECKING:
    from problems import Problem

_WORDS = {0: ("dull", "bad", "slow", "poor"), 1: ("good", "fine", "bright", "great")}
_FILLING = ("a", "film", "with", "the", "plot", "and", "its", "cast", "is", "of")


def toy(problem: Problem, work: Path) -> Problem:
    """The problem on 64 training and 32 test rows with a small model, two epochs where it had several."""
    folder = (work / f"toy-{'text' if problem.is_text else 'image'}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if problem.is_text:
        _write_texts(folder)
        checkpoint = _tiny_bert(folder / "bert")
    else:
        _write_digits(folder)
        # By its path: the other contestants do not know what ships with hf_finetune.
        checkpoint = str(HERE.parent / "hf_finetune" / "assets" / "digits-vit")
    return replace(
        problem,
        rows=(64, 32),
        checkpoint=checkpoint,
        epochs=min(problem.epochs, 2),
        batch_size=16,
        train_blocks=1,
        data=folder,
    )


def _write_digits(folder: Path) -> None:
    from datasets import Dataset
    from datasets import Image as ImageFeature

    from hf_finetune.data.packages import read_package

    for (name, split), rows in zip(read_package("digits").items(), (64, 32), strict=True):
        digits: Dataset = split.select(range(rows)).select_columns(["image", "label"])
        digits.cast_column("image", ImageFeature()).to_parquet(folder / f"{name}.parquet")


def _write_texts(folder: Path) -> None:
    from datasets import ClassLabel, Dataset

    draw = random.Random(0)
    for name, rows in (("train", 64), ("test", 32)):
        labels = [draw.randrange(2) for _ in range(rows)]
        texts = [
            " ".join([*draw.choices(_FILLING, k=draw.randrange(3, 20)), draw.choice(_WORDS[label])]) for label in labels
        ]
        made = Dataset.from_dict({"text": texts, "label": labels})
        made.cast_column("label", ClassLabel(names=["negative", "positive"])).to_parquet(folder / f"{name}.parquet")


def _tiny_bert(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

        folder.mkdir(parents=True, exist_ok=True)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_FILLING, *_WORDS[0], *_WORDS[1]]
        vocabulary = folder / "vocab.txt"
        vocabulary.write_text("\n".join(words), encoding="utf-8")
        BertTokenizer(str(vocabulary), model_max_length=128).save_pretrained(folder)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)
