"""One look at every row before training: broken rows, copies, colour."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from PIL import Image

from hf_finetune.data.bands import is_bands, load_bands
from hf_finetune.data.images import decode_image
from hf_finetune.data.kinds import kind_of, kind_of_file
from hf_finetune.data.passes import cached_pass
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_NAMED = 10  # broken rows that an error names
_MOST_TO_ONE = 200  # an image's sides; where the shorter one is resized to 224 pixels, the other would have 44,800
_VERSION = "5"  # of what is looked at; part of the cache's key
_FEATURES = Features(
    {
        "reason": Value("string"),
        "digest": Value("string"),
        "alpha": Value("string"),
        "coloured": Value("bool"),
        "plain": Value("bool"),
        "plain_with_alpha": Value("bool"),
    }
)


@dataclass(frozen=True)
class Inspection:
    """What was found in each row of a split.

    Args:
        reasons: why a row cannot be used; None where it can.
        digests: hash of what the model is shown, so that exact copies are equal: the decoded pixels, or the stripped
            text and its pair.
        alphas: hash of an alpha channel that the model is not shown; "" where there is none, or it is opaque.
        coloured: whether an image shows colour; False for text.
        plain: whether all pixels of an image are equal, in what the model is shown of it; False for text.
        masked: whether the model is shown an alpha channel that is not opaque.
    """

    reasons: list[str | None]
    digests: list[str]
    alphas: list[str]
    coloured: list[bool]
    plain: list[bool]
    masked: list[bool]

    @property
    def contents(self) -> list[str]:
        """Hash of all that each row holds, whatever of it this run's model is shown."""
        return [digest + alpha for digest, alpha in zip(self.digests, self.alphas, strict=True)]

    def select(self, places: Sequence[int]) -> Inspection:
        """What was found in these rows of the split."""
        return Inspection(*([values[place] for place in places] for values in vars(self).values()))


def inspect(split: Dataset, channels: int | None = None) -> Inspection:
    """Decode every image fully, or check every text, once; the result is kept in the cache of `datasets`.

    Args:
        split: columns image, or text and perhaps text_pair.
        channels: that the recipe gives the model; None leaves it to the checkpoint, of which RGB is expected.
    """
    look = _inspect_images if "image" in split.column_names else _inspect_texts
    found = cached_pass(split, look, _FEATURES, "inspection", _VERSION, "Checking rows")
    unmasked = [False] * len(split)
    looked = Inspection(found["reason"], found["digest"], found["alpha"], found["coloured"], found["plain"], unmasked)
    return _with_alpha(looked, found["plain_with_alpha"]) if channels == 4 else looked


def _with_alpha(looked: Inspection, plain: list[bool]) -> Inspection:
    """As a model of four channels sees the rows: images that differ in their alpha channel alone are no copies."""
    masked = [bool(alpha) for alpha in looked.alphas]
    return Inspection(looked.reasons, looked.contents, [""] * len(masked), looked.coloured, plain, masked)


def _inspect_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [_inspect_image(value) for value in batch["image"]]
    return {name: [row[place] for row in rows] for place, name in enumerate(_FEATURES)}


def _inspect_image(value: Any) -> tuple[str | None, str, str, bool, bool, bool]:
    """Reason, digest, alpha, coloured, plain, and plain with its alpha channel, of one image."""
    try:
        if is_bands(value):
            bands = load_bands(value)
            # The type says what the numbers are shares of: true is white, and 1 of bytes is nearly black.
            digest = _digest(bands, f"{bands.dtype.str} {bands.shape}")
            is_plain = bool(bands.min() == bands.max())
            return None, digest, "", False, is_plain, is_plain
        image = decode_image(value, None)
    except OSError as error:
        return f"the image cannot be decoded: {why_undecodable(value, error)}", "", "", False, False, False
    if (fault := shape_fault(image)) is not None:
        return fault, "", "", False, False, False
    size, alpha = f"{image.width}x{image.height}", ""
    extrema: Any = image.getextrema()  # (lowest, highest) of each channel
    even = [lowest == highest for lowest, highest in extrema]
    if image.mode == "RGBA":
        alpha = "" if extrema[3] == (255, 255) else _digest(image.getchannel("A"), size)
        image = image.convert("RGB")
    return None, _digest(image, size), alpha, _shows_colour(image), all(even[:3]), all(even)


def _digest(pixels: Image.Image | np.ndarray, key: str) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, key=key.encode()).hexdigest()


def shape_fault(image: Image.Image) -> str | None:
    """Why an image of such sides cannot be used; None where it can."""
    if max(image.size) <= _MOST_TO_ONE * min(image.size):
        return None
    size = f"{image.width:,} x {image.height:,} pixels"
    return f"the image has {size}: its sides differ by more than {_MOST_TO_ONE} to 1"


def why_undecodable(value: Any, error: OSError) -> str:
    """What a stored image really is, or what its decoder says."""
    head, path = (value["bytes"], value["path"]) if value else (None, None)
    kind = None
    if not is_bands(value):
        kind = kind_of(head[:512]) if head is not None else kind_of_file(Path(path)) if path else None
    # Pillow names the object in memory by its address, and the path is told beside: neither helps the reader.
    unknown = "cannot identify image file" in str(error)
    reason = "it is not an image" if unknown else shown(error.strerror or error, 200)
    return f"it is {kind}" if kind and not isinstance(error, FileNotFoundError) else reason


def _shows_colour(image: Image.Image) -> bool:
    """Whether red, green and blue differ by more than 16 of 255 levels in a twentieth of a thumbnail or more."""
    thumbnail = np.asarray(image.resize((16, 16), Image.Resampling.BOX)).astype(np.int16)
    return bool((np.ptp(thumbnail, axis=2) > 16).mean() >= 0.05)


def _inspect_texts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [_inspect_text(values) for values in zip(*batch.values(), strict=True)]
    never = [False] * len(rows)
    return {
        "reason": [row[0] for row in rows],
        "digest": [row[1] for row in rows],
        "alpha": [""] * len(rows),
        "coloured": never,
        "plain": never,
        "plain_with_alpha": never,
    }


def text_fault(values: Sequence[str | None]) -> str | None:
    """Why a text, or it and its pair, cannot be used; None where it can."""
    for value in values:
        if value is None:
            return "the text is missing"
        if not value.strip():
            return "the text is empty"
        if not any(map(_is_visible, value)):
            return "the text is empty but for control characters"
    return None


def _inspect_text(values: Sequence[str | None]) -> tuple[str | None, str]:
    if (fault := text_fault(values)) is not None:
        return fault, ""
    joined = "\x1f".join(value.strip() for value in values if value is not None)
    return None, hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _is_visible(char: str) -> bool:
    """Whether a character is more than space, a control character or a mark without width of its own."""
    return (char.isprintable() and not char.isspace()) or unicodedata.category(char) in ("Co", "Cn")


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
            path = path_of(split, place)
            broken.append({"split": name, "row": row, "path": path, "reason": "; ".join(reasons)})
    return broken


def path_of(split: Dataset, place: int) -> str | None:
    """The file of a row's image; None for texts and images that are in no file of their own."""
    image = split[place]["image"] if "image" in split.column_names else None
    return image["path"] if image else None


def paths_of(split: Dataset) -> list[str | None]:
    """`path_of` of every row, without reading the images."""
    if "image" not in split.column_names:
        return [None] * len(split)
    batches = split.select_columns(["image"]).with_format("arrow").iter(batch_size=1024)
    return [path for batch in batches for path in pc.struct_field(batch["image"], "path").to_pylist()]


def refuse(broken: Sequence[Mapping[str, Any]], used: int) -> None:
    """Stop at broken rows, naming the first ten.

    Raises:
        DataError: there are any.
    """
    if not broken:
        return
    lines = []
    for row in broken[:_NAMED]:
        path = f" ({shown(row['path'], 300)})" if row["path"] else ""
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
