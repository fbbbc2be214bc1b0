"""One look at every row before training: broken rows, copies, colour."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from datasets.fingerprint import Hasher
from PIL import Image

from hf_finetune.data.images import decode_image
from hf_finetune.errors import DataError

_NAMED = 10  # broken rows that an error names
_VERSION = "1"  # of what is looked at; part of the cache's key
_FEATURES = Features({"reason": Value("string"), "digest": Value("string"), "coloured": Value("bool")})
# Rows from which several processes are worth their start.
_MANY = {"image": 20_000, "text": 500_000}


@dataclass(frozen=True)
class Inspection:
    """What was found in each row of a split.

    Args:
        reasons: why a row cannot be used; None where it can.
        digests: hash of the decoded pixels or of the stripped text and its pair, so that exact copies are equal.
        coloured: whether an image shows colour; False for text.
    """

    reasons: list[str | None]
    digests: list[str]
    coloured: list[bool]

    def select(self, places: Sequence[int]) -> Inspection:
        """What was found in these rows of the split."""
        return Inspection(
            [self.reasons[place] for place in places],
            [self.digests[place] for place in places],
            [self.coloured[place] for place in places],
        )


def inspect(split: Dataset) -> Inspection:
    """Decode every image fully, or check every text, once; the result is kept in the cache of `datasets`.

    The cache knows a row by the data set's fingerprint and, for images in files of their own, each file's size and
    date.
    """
    kind = "image" if "image" in split.column_names else "text"
    content = split.select_columns([name for name in ("image", "text", "text_pair") if name in split.column_names])
    key = Hasher.hash([_VERSION, content._fingerprint, _stamps(content) if kind == "image" else None])
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_finetune"
    folder.mkdir(parents=True, exist_ok=True)
    workers = (os.cpu_count() or 1) if len(content) >= _MANY[kind] else None
    looked = content.map(
        _inspect_images if kind == "image" else _inspect_texts,
        batched=True,
        batch_size=256,
        remove_columns=content.column_names,
        features=_FEATURES,
        num_proc=workers if workers != 1 else None,
        cache_file_name=str(folder / f"inspection-{key}.arrow"),
        new_fingerprint=key,
        desc="Checking rows",
    )
    columns = looked.with_format("arrow")[:]
    return Inspection(*(columns[name].to_pylist() for name in ("reason", "digest", "coloured")))


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
    except OSError:
        return path, -1, -1
    return path, status.st_size, status.st_mtime_ns


def _inspect_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [_inspect_image(value) for value in batch["image"]]
    return {
        "reason": [row[0] for row in rows],
        "digest": [row[1] for row in rows],
        "coloured": [row[2] for row in rows],
    }


def _inspect_image(value: Any) -> tuple[str | None, str, bool]:
    try:
        image = decode_image(value)
    except OSError as error:
        # Pillow names the object in memory by its address; the address says nothing to the reader.
        reason = "it is not an image" if "cannot identify image file" in str(error) else str(error)
        return f"the image cannot be decoded: {reason}", "", False
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%dx%d" % image.size).hexdigest()
    return None, digest, _shows_colour(image)


def _shows_colour(image: Image.Image) -> bool:
    """Whether red, green and blue differ by more than 16 of 255 levels in a twentieth of a thumbnail or more."""
    thumbnail = np.asarray(image.resize((16, 16), Image.Resampling.BOX)).astype(np.int16)
    return bool((np.ptp(thumbnail, axis=2) > 16).mean() >= 0.05)


def _inspect_texts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [_inspect_text(values) for values in zip(*batch.values(), strict=True)]
    return {"reason": [row[0] for row in rows], "digest": [row[1] for row in rows], "coloured": [False] * len(rows)}


def _inspect_text(values: Sequence[str | None]) -> tuple[str | None, str]:
    for value in values:
        if value is None or not value.strip():
            return "the text is empty" if value is not None else "the text is missing", ""
    joined = "\x1f".join(value.strip() for value in values if value is not None)
    return None, hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def broken_rows(
    name: str, split: Dataset, inspection: Inspection, label_reasons: Mapping[int, str]
) -> list[dict[str, Any]]:
    """The rows of a split that cannot be used, as {"split", "row", "path", "reason"}; `row` counts in the source split.

    Args:
        name: the split's name in the source.
        split: the split's canonical rows.
        inspection: what `inspect` found in them.
        label_reasons: why rows of the source have no target.
    """
    broken = []
    for place, (row, reason) in enumerate(zip(split["id"][:], inspection.reasons, strict=True)):
        reasons = [text for text in (reason, label_reasons.get(row)) if text]
        if reasons:
            path = split[place]["image"]["path"] if "image" in split.column_names and split[place]["image"] else None
            broken.append({"split": name, "row": row, "path": path, "reason": "; ".join(reasons)})
    return broken


def refuse(broken: Sequence[Mapping[str, Any]], used: int) -> None:
    """Stop at broken rows, naming the first ten.

    Raises:
        DataError: there are any.
    """
    if not broken:
        return
    lines = []
    for row in broken[:_NAMED]:
        path = f" ({row['path']})" if row["path"] else ""
        lines.append(f"  {row['split']} row {row['row']}{path}: {row['reason']}")
    if len(broken) > _NAMED:
        lines.append(f"  ... and {len(broken) - _NAMED:,} more")
    raise DataError(
        f"{len(broken):,} of {used:,} rows cannot be used (rows are counted from 0):\n"
        + "\n".join(lines)
        + "\nMend them, or leave them out with data.on_error=skip."
    )


def count_copies(train: Sequence[str], test: Sequence[str]) -> int:
    """How many test rows are exact copies of a row that training or validation sees."""
    seen = set(train) - {""}
    return sum(digest in seen for digest in test)
