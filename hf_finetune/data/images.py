"""One image in, one RGB image out: any container, any mode, upright."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

# What Pillow's decoders raise on broken files besides OSError.
_BROKEN = (SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, Image.DecompressionBombError)
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def decode_image(value: bytes | str | Path | dict[str, Any] | Image.Image, mode: str = "RGB") -> Image.Image:
    """Decode an image fully, turn it upright by its EXIF tag and make it RGB (or L, or RGBA).

    For images of 8 bits a channel the result equals `transformers.image_utils.load_image`, which pipelines use (an
    alpha channel is dropped, a palette looked up, CMYK converted). Greater depths, which Pillow would clip to white,
    are scaled.

    Args:
        value: encoded bytes, a path, the `{"bytes", "path"}` of `datasets.Image(decode=False)`, or a PIL image.
        mode: of the answer.

    Raises:
        OSError: if there is no image, or if it cannot be decoded to its last row.
    """
    try:
        image = open_image(value)
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP_MODES:
            image = _to_eight_bits(image)
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # the same pixels, without Pillow's warning
        return image.convert(mode)
    except OSError:
        raise
    except _BROKEN as error:
        raise OSError(str(error) or type(error).__name__) from error


def open_image(value: bytes | str | Path | dict[str, Any] | Image.Image | None) -> Image.Image:
    """An image as it is stored, its header read and its pixels not yet.

    Raises:
        OSError: there is no image, or none that Pillow knows.
    """
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, dict):
        return open_image(value["bytes"] if value.get("bytes") is not None else value.get("path"))
    if value is None:
        raise OSError("there is no image")
    if isinstance(value, bytes):
        if not value:
            raise OSError("the image is empty (0 bytes)")
        return Image.open(io.BytesIO(value))
    return Image.open(value)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits to mode L.

    16-bit integers are scaled by their full range (65535 is white), so that equal values stay equal across images.
    Modes I and F do not say their range: it is the smallest of [0, 1] (F alone), [0, 255] and [0, 65535] that holds
    the image.
    """
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    highest = values.max(initial=0.0)
    if image.mode.startswith("I;16") or highest > 255:
        white = max(65535.0, highest)
    elif image.mode == "F" and highest <= 1:
        white = 1.0
    else:
        white = 255.0
    return Image.fromarray(np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8))
