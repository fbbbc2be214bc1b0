"""One image in, one RGB image out: any container, any mode, upright."""

from __future__ import annotations

import io
import stat
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_ORIENTATION = 0x0112  # EXIF's tag
_STRIP = 1 << 22  # pixels of a deep image that are scaled at once
# The first five are always there; to know the others Pillow imports forty modules.
_USUAL = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
_THERE = _USUAL[:5]
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def decode_image(value: bytes | str | Path | dict[str, Any] | Image.Image, mode: str | None = "RGB") -> Image.Image:
    """Decode an image fully, turn it upright by its EXIF tag and make it RGB (or L, or RGBA).

    For images of 8 bits a channel the result equals `transformers.image_utils.load_image`, which pipelines use (an
    alpha channel is dropped, a palette looked up, CMYK converted). Greater depths, which Pillow would clip to white,
    are scaled.

    Args:
        value: encoded bytes, a path, the `{"bytes", "path"}` of `datasets.Image(decode=False)`, or a PIL image.
        mode: of the answer; None for RGBA where the image can be transparent and RGB where not.

    Raises:
        OSError: if there is no image, or if it cannot be decoded to its last row.
    """
    try:
        image = open_image(value)
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:  # else it would be a copy, of half a gigabyte for the largest
            image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP_MODES:
            image = _to_eight_bits(image)
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # the same pixels, without Pillow's warning
        if mode is None:
            mode = "RGBA" if image.has_transparency_data else "RGB"
        return image.convert(mode)
    except OSError:
        raise
    except MemoryError as error:
        raise OSError("there is not enough memory to decode it") from error
    except Exception as error:  # on broken files Pillow's decoders raise errors of every kind
        raise OSError(str(error) or type(error).__name__) from error


def open_image(value: bytes | str | Path | dict[str, Any] | Image.Image | None) -> Image.Image:
    """An image as it is stored, its header read and its pixels not yet.

    Raises:
        OSError: there is no image, or none that Pillow knows; or the path is not that of a file.
    """
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, dict):
        return open_image(value["bytes"] if value.get("bytes") is not None else value.get("path"))
    if value is None or value == "":
        raise OSError("there is no image")
    if not isinstance(value, bytes):
        status = Path(value).stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for a writer, for ever
            raise OSError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
    if not (value if isinstance(value, bytes) else status.st_size):
        raise OSError("the image is empty (0 bytes)")
    try:
        return Image.open(io.BytesIO(value) if isinstance(value, bytes) else value, formats=_THERE)
    except UnidentifiedImageError:
        return Image.open(io.BytesIO(value) if isinstance(value, bytes) else value, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """What Pillow reads by itself, the usual kinds first; PostScript it hands to another program, Ghostscript."""
    Image.init()
    return tuple(sorted((name for name in Image.OPEN if name != "EPS"), key=lambda name: name not in _USUAL))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits to mode L.

    16-bit integers are scaled by their full range (65535 is white), so that equal values stay equal across images.
    Modes I and F do not say their range: it is the smallest of [0, 1] (F alone), [0, 255] and [0, 65535] that holds
    the image.
    """
    # In strips: as float64, and with the steps between, the largest images would take ten gigabytes.
    rows = max(1, _STRIP // max(image.width, 1))
    strips = [(start, min(start + rows, image.height)) for start in range(0, image.height, rows)]
    highest = max((_values(image, *strip).max(initial=0.0) for strip in strips), default=0.0)
    if image.mode.startswith("I;16") or highest > 255:
        white = max(65535.0, highest)
    elif image.mode == "F" and highest <= 1:
        white = 1.0
    else:
        white = 255.0
    levels = np.empty((image.height, image.width), dtype=np.uint8)
    for start, end in strips:
        levels[start:end] = np.rint(_values(image, start, end).clip(0, white) * (255 / white))
    return Image.fromarray(levels)


def _values(image: Image.Image, start: int, end: int) -> np.ndarray:
    """Rows of a grey image, finite float64 (end - start, width)."""
    values = np.asarray(image.crop((0, start, image.width, end))).astype(np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
