"""One pass over every row of a split, kept in the cache of `datasets` until the rows change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset, Features
from datasets.fingerprint import Hasher

from hf_finetune.orphans import forks_end_with_this

# Rows from which several processes are worth their start.
_MANY = {"image": 20_000, "text": 500_000}

Batch = dict[str, list[Any]]


def cached_pass(
    split: Dataset, look: Callable[[Batch], Batch], features: Features, name: str, version: str, words: str
) -> dict[str, list[Any]]:
    """Apply `look` to the content of every row; from the cache where nothing has changed.

    The cache knows a row by the data set's fingerprint and, for images in files of their own, each file's size and
    date.

    Args:
        split: columns image, or text and perhaps text_pair; others are not looked at.
        look: columns of a batch -> columns of findings.
        features: of the findings.
        name: of the cache's files.
        version: another one when `look` finds something else.
        words: beside the progress bar.

    Returns:
        the findings by column, a value a row.
    """
    kind = "image" if "image" in split.column_names else "text"
    content = split.select_columns([role for role in ("image", "text", "text_pair") if role in split.column_names])
    key = Hasher.hash([name, version, content._fingerprint, _stamps(content) if kind == "image" else None])
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_finetune"
    folder.mkdir(parents=True, exist_ok=True)
    workers = (os.cpu_count() or 1) if len(content) >= _MANY[kind] else None
    with forks_end_with_this():
        looked = content.map(
            look,
            batched=True,
            batch_size=256,
            remove_columns=content.column_names,
            features=features,
            num_proc=workers if workers != 1 else None,
            cache_file_name=str(folder / f"{name}-{key}.arrow"),
            new_fingerprint=key,
            desc=words,
        )
    columns = looked.with_format("arrow")[:]
    return {column: columns[column].to_pylist() for column in features}


def _stamps(content: Dataset) -> list[tuple[str | None, int, int]]:
    """Path, size and time of change of the images that are files of their own."""
    stamps: list[tuple[str | None, int, int]] = []
    for batch in content.with_format("arrow").iter(batch_size=1024):
        images = batch["image"]
        alone = images.filter(pc.is_null(pc.struct_field(images, "bytes")))
        stamps += map(_stamp, pc.struct_field(alone, "path").to_pylist())
    return stamps


def _stamp(path: str | None) -> tuple[str | None, int, int]:
    try:
        status = Path(path or "").stat()
    except (OSError, ValueError):  # a name with a NUL in it
        return path, -1, -1
    return path, status.st_size, status.st_mtime_ns
