"""Shards of every kind with the same rows, and a source of rows that are made as they are read."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from data_samples import encoded, photo

NAMES = ["a", "b", "c"]


def pictures(rows: int, first: int = 0) -> datasets.Dataset:
    """Images of three classes, no two alike."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    images = [{"bytes": encoded(photo(first + row, (12, 9))), "path": None} for row in range(rows)]
    return datasets.Dataset.from_dict({"image": images, "label": [row % 3 for row in range(rows)]}, features=features)


def sentences(rows: int, first: int = 0) -> datasets.Dataset:
    """Texts of three classes by name, no two alike."""
    words = [f"w{3 + row % 40} w{4 + row // 40} w7" for row in range(first, first + rows)]
    return datasets.Dataset.from_dict({"text": words, "label": [NAMES[row % 3] for row in range(rows)]})


def as_parquet(
    split: datasets.Dataset, folder: Path, name: str = "train", shards: int = 3, group: int = 4
) -> list[str]:
    """Shards of row groups of `group` rows."""
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{name}-{shard:05}.parquet") for shard in range(shards)]
    table = split.with_format("arrow")[:]
    for shard, path in enumerate(paths):
        begin, end = len(split) * shard // shards, len(split) * (shard + 1) // shards
        pq.write_table(table.slice(begin, end - begin), path, row_group_size=group)
    return paths


def as_jsonl(split: datasets.Dataset, folder: Path, name: str = "train", shards: int = 3) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{name}-{shard}.jsonl") for shard in range(shards)]
    for shard, path in enumerate(paths):
        rows = split.select(range(len(split) * shard // shards, len(split) * (shard + 1) // shards))
        Path(path).write_text("\n\n".join(json.dumps(row) for row in rows))  # a blank line is no row
    return paths


def as_tar(split: datasets.Dataset, folder: Path, name: str = "train", shards: int = 3) -> list[str]:
    folder.mkdir(exist_ok=True)
    rows = split.cast_column("image", datasets.Image(decode=False))
    paths = [str(folder / f"{name}-{shard}.tar") for shard in range(shards)]
    for shard, path in enumerate(paths):
        with tarfile.open(path, "w") as archive:
            for number in range(len(split) * shard // shards, len(split) * (shard + 1) // shards):
                row = rows[number]
                put(archive, f"./part/{number:06}.png", row["image"]["bytes"])
                put(archive, f"./part/{number:06}.cls", str(row["label"]).encode())
    return paths


def put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


class Made:
    """Rows of a data set, in chunks of the given sizes, that counts how often each chunk is read."""

    def __init__(self, split: datasets.Dataset, sizes: Sequence[int], stamp: str = "made") -> None:
        assert sum(sizes) == len(split)
        self.features, self.sizes, self.stamp = split.features, np.asarray(sizes), stamp
        self.table: pa.Table = split.with_format("arrow")[:]
        self.ends = np.cumsum(self.sizes)
        self.reads: Counter[int] = Counter()

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        self.reads[chunk] += 1
        size = int(self.sizes[chunk])
        return self.table.slice(int(self.ends[chunk]) - size, size).select(list(columns))


def made(make: Any, rows: dict[str, int]) -> dict[str, Made]:
    """Splits of so many rows, in chunks of four."""
    found = {}
    for place, (name, count) in enumerate(rows.items()):
        sizes = [4] * (count // 4) + ([count % 4] if count % 4 else [])
        found[name] = Made(make(count, 1000 * place), sizes)
    return found
