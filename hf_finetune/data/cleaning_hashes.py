"""What an image looks like in 64 bits, and its size and mode as it is stored: one pass over a split's images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value
from PIL import Image

from hf_finetune.data.bands import is_bands, load_bands
from hf_finetune.data.images import decode_image, open_image
from hf_finetune.data.passes import cached_pass

_VERSION = "1"  # of what is looked at; part of the cache's key
_FEATURES = Features(
    {
        "width": Value("int32"),
        "height": Value("int32"),
        "mode": Value("string"),
        "format": Value("string"),
        "hash": Value("string"),  # `datasets` does not write numbers above 2**63
    }
)
_SIDE, _LOW = 32, 8  # the thumbnail's side, and how many frequencies of each direction are kept


@dataclass(frozen=True)
class ImageFacts:
    """What was found in each image of a split.

    Args:
        widths: pixels of the upright image, 0 where it cannot be decoded.
        heights: pixels, as widths.
        modes: Pillow's name of what a stored pixel holds ("L", "RGB", "CMYK"); "" where it cannot be decoded.
        formats: of the file ("JPEG"); "" where it is not known.
        hashes: perceptual hashes, (N,) uint64; 0 where the image cannot be decoded.
    """

    widths: np.ndarray
    heights: np.ndarray
    modes: list[str]
    formats: list[str]
    hashes: np.ndarray


def look_at_images(split: Dataset) -> ImageFacts:
    """Size, mode, format and perceptual hash of every image (column image); kept in the cache of `datasets`."""
    found = cached_pass(split, _look_at_batch, _FEATURES, "looks", _VERSION, "Looking at images")
    return ImageFacts(
        np.array(found["width"], dtype=np.int64),
        np.array(found["height"], dtype=np.int64),
        found["mode"],
        found["format"],
        np.array([int(text, 16) for text in found["hash"]], dtype=np.uint64),
    )


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that change little when an image is resized, compressed again or slightly changed in tone.

    The pHash of Zauner 2010 ("Implementation and benchmarking of perceptual image hash functions"), bit for bit that
    of the library imagehash: the 8 x 8 lowest frequencies of the cosine transform of a grey 32 x 32 thumbnail, each
    against their median.
    """
    thumbnail = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = _COSINES @ np.asarray(thumbnail, dtype=np.float64) @ _COSINES.T
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> np.ndarray:
    """The first rows of the discrete cosine transform (type II, not normalised), shape (8, 32)."""
    frequency, place = np.arange(_LOW)[:, None], np.arange(_SIDE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))


_COSINES = _cosines()


def _look_at_batch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [_look_at(value) for value in batch["image"]]
    return {name: [row[place] for row in rows] for place, name in enumerate(_FEATURES)}


def _look_at(value: Any) -> tuple[int, int, str, str, str]:
    try:
        if is_bands(value):
            return _look_at_bands(load_bands(value))
        image = decode_image(value)
    except OSError:
        return 0, 0, "", "", "0"
    stored = open_image(value)  # its header alone
    return *image.size, stored.mode, stored.format or "", f"{perceptual_hash(image):x}"


def _look_at_bands(bands: np.ndarray) -> tuple[int, int, str, str, str]:
    """An array of any number of bands: the hash is that of their mean."""
    bands = bands[:, :, None] if bands.ndim == 2 else bands
    axis = int(np.argmin(bands.shape))  # bands are fewer than pixels across
    grey = bands.mean(axis=axis, dtype=np.float64)
    levels = (grey - grey.min()) * (255 / max(np.ptp(grey), 1e-12))
    code = perceptual_hash(Image.fromarray(np.rint(levels).astype(np.uint8)))
    return grey.shape[1], grey.shape[0], f"{bands.shape[axis]} bands", "NPY", f"{code:x}"
