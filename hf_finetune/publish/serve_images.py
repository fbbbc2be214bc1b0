"""Images from strangers: opened without decoding, and only where decoding them is safe."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, UnidentifiedImageError

# What cameras, browsers and data sets write. Pillow knows more, some of which starts other programs (EPS).
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_MOST_SCANS = 100  # of a progressive JPEG; cameras write about ten, and each is another pass over all pixels
_NUMPY = b"\x93NUMPY"

Image.init()  # loads all of Pillow's formats, some of which not every build has
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)


class UnsafeImage(ValueError):
    """Not an image that may be decoded; the message says why, in words."""


def open_safely(content: bytes, max_pixels: int) -> tuple[Image.Image | bytes, int]:
    """An image whose header is read and whose pixels are not yet.

    Args:
        content: an encoded image; or an array as a .npy file, for models of other channels.
        max_pixels: most rows x columns.

    Returns:
        the image, to be decoded by `hf_finetune.data.decode_image`, and its number of pixels.

    Raises:
        UnsafeImage: it is none, of a format that is not taken, too large, or made to keep a decoder busy.
    """
    if not content:
        raise UnsafeImage("the image is empty (0 bytes)")
    if content.startswith(_NUMPY):
        return content, _pixels_of_array(content, max_pixels)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UnsafeImage(f"the image has more pixels than are taken ({_mega(max_pixels)})") from None
    except UnidentifiedImageError:
        raise UnsafeImage(f"this is no image of a known format; {', '.join(FORMATS)} are taken") from None
    except Exception as error:  # decoders raise what they like on broken headers
        raise UnsafeImage(f"the image cannot be read: {error or type(error).__name__}") from None
    _check_size(image.size, max_pixels)
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MOST_SCANS:
        raise UnsafeImage(f"the JPEG has more than {_MOST_SCANS} scans")
    return image, image.width * image.height


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnsafeImage(
            f"the image has {width} x {height} pixels, {_mega(width * height)}; at most {_mega(max_pixels)} are taken"
        )


def _pixels_of_array(content: bytes, max_pixels: int) -> int:
    """Rows x columns (times bands, at worst) of a .npy file, whose header must tell the truth about its size."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except Exception as error:
        raise UnsafeImage(f"the array cannot be read: {error}") from None
    if kind.hasobject or math.prod(shape) * kind.itemsize != len(content) - stream.tell():
        raise UnsafeImage("the array's header does not fit its content")
    if math.prod(shape) > max_pixels * 16:
        raise UnsafeImage(f"the array has shape {shape}; at most {_mega(max_pixels)} of 16 bands are taken")
    return math.prod(shape) // min(shape, default=1) if len(shape) == 3 else math.prod(shape)


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:.3g} megapixels"
