"""Images of every mode, damaged ones, and files that only say that they are images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image, ImageCms

from .bad_case import IMAGE, Corpus, Given
from .bad_samples import class_folders, encoded, picture, with_image

CORPUS = Corpus("images", IMAGE)
_TWO = "2 classes: ants, bees"


Content = bytes | Callable[[], bytes]  # large ones are made when they are wanted


def _add(name: str, content: Content, file: str, expected: dict[str, Any]) -> None:
    def make(folder: Path) -> Given:
        return with_image(folder, content if isinstance(content, bytes) else content(), file)

    CORPUS.add(f"image {name}", make, **expected)


def _good(name: str, content: Content, file: str = "odd.png", **expected: Any) -> None:
    _add(name, content, file, {"says": _TWO, **expected})


def _bad(name: str, content: Content, file: str = "odd.png", reason: str = "cannot be decoded", **more: Any) -> None:
    _add(name, content, file, {"refused": rf"1 of 17 rows cannot be used.*{file}\): .*{reason}", **more})


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """A PNG of zeros: a few kilobytes whatever its size."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    squeezed = zlib.compressobj(1)
    row = bytes(1 + width * channels * depth // 8)
    body = b"".join(squeezed.compress(row) for _ in range(height)) + squeezed.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _promised(width: int, height: int) -> bytes:
    """A PNG whose header says a size that its few bytes do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _floats(width: int, height: int) -> bytes:
    return encoded(Image.fromarray(np.zeros((height, width), np.float32)), "TIFF", compression="tiff_adobe_deflate")


def _lab(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))  # type: ignore[return-value]


def _squeezed_text() -> bytes:
    return b"a\0\0" + zlib.compress(bytes(80 * 2**20))


_BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1\x12" * 40
_RGB, _GREY = picture(50), picture(51).convert("L")
_DEEP = Image.fromarray(np.asarray(_GREY).astype(np.uint16) * 257)
_FLOAT = Image.fromarray(np.asarray(_GREY).astype(np.float32) / 255)
_MOVING = {"save_all": True, "append_images": [picture(n) for n in range(52, 55)]}

for mode in ("1", "L", "LA", "P", "RGBA", "I", "I;16"):
    _good(f"of mode {mode}", encoded(_DEEP if mode == "I;16" else _RGB.convert(mode)))
_good("of mode CMYK", encoded(_RGB.convert("CMYK"), "JPEG"), "odd.jpg")
_good("of mode YCbCr", encoded(_RGB.convert("YCbCr"), "JPEG"), "odd.jpg")
_good("of mode F", encoded(_FLOAT, "TIFF"), "odd.tif")
_good(
    "of mode F that is not a number", encoded(Image.fromarray(np.full((20, 24), np.nan, np.float32)), "TIFF"), "odd.tif"
)
_good("of mode LAB", encoded(_lab(_RGB), "TIFF"), "odd.tif")
_good("with a transparent palette", encoded(_RGB.convert("P"), transparency=3))
_good("with a transparent colour", encoded(_RGB, transparency=(0, 0, 0)))
_good("of 16 bits in three channels", _png(24, 20, depth=16, colour=2))
_good("turned by EXIF", encoded(_RGB, "JPEG", exif=_exif(6)), "odd.jpg")
_good("with a strange EXIF orientation", encoded(_RGB, "JPEG", exif=_exif(77)), "odd.jpg")
_good("with a broken colour profile", encoded(_RGB, icc_profile=b"no profile"))
_good("animated (GIF)", encoded(_RGB, "GIF", **_MOVING), "odd.gif")
_good("animated (WebP)", encoded(_RGB, "WEBP", **_MOVING), "odd.webp")
_good("animated (PNG)", encoded(_RGB, "PNG", **_MOVING))
_good("of several pages", encoded(_RGB, "TIFF", **_MOVING), "odd.tif")
_good("of one pixel", encoded(picture(1, (1, 1))))
_good("of one row", encoded(picture(1, (150, 1))))
_good("with a wrong ending", encoded(_RGB, "PNG"), "odd.jpg")
_good("with a second one behind it", encoded(_RGB, "JPEG") + b"trailing" * 99, "odd.jpg")
_good("of one colour", encoded(Image.new("RGB", (24, 20), (9, 9, 9))))
_good("of 160 million pixels", lambda: _png(13_000, 12_500), heavy=True)
_good("of 160 million pixels of 16 bits", lambda: _png(13_000, 12_500, depth=16), heavy=True)
_good("of 160 million pixels with alpha", lambda: _png(13_000, 12_500, colour=6), heavy=True)
_good("of 160 million floats", lambda: _floats(13_000, 12_500), "odd.tif", heavy=True)

_WHOLE = encoded(picture(60, (200, 150)), "JPEG")
_bad("cut off (JPEG)", _WHOLE[: len(_WHOLE) // 2], "odd.jpg", "truncated")
_bad("cut off (PNG)", encoded(picture(60, (200, 150)))[:400], reason="cannot be decoded")
_bad("cut off in its header", _WHOLE[:12], "odd.jpg")
_bad("of no bytes", b"", reason=r"empty .0 bytes")
_bad("of text", b"these are notes", "odd.jpg", "it is not an image")
_bad("of zeros", b"\0" * 5000, "odd.jpg", "nothing but zeros")
_bad("with a false checksum", encoded(_RGB)[:40] + b"\xff" + encoded(_RGB)[41:])
_bad("that is a web page", b"<!DOCTYPE html><html>404</html>", "odd.jpg", "a web page")
_bad("that is a pointer", b"version https://git-lfs.github.com/spec/v1\noid", "odd.jpg", "Git LFS.*git lfs pull")
_bad("of SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "odd.svg", "an SVG drawing")
_bad("of HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "odd.heic", "a HEIC image: save it as JPEG")
_bad("of HEIC, called jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "odd.jpg", "a HEIC image")
_bad("of PDF", b"%PDF-1.7\n%" + bytes(99), "odd.jpg", "a PDF")
_bad("of broken AVIF", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(99), "odd.avif")
_bad("of a decompression bomb", _promised(50_000, 50_000), reason="2500000000 pixels. exceeds limit")
_bad("of a decompression bomb (GIF)", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + bytes(99), "odd.gif")
_bad(
    "of 60,000 pixels by 1",
    encoded(Image.new("L", (60_000, 1))),
    reason="60,000 x 1 pixels: its sides differ by more than",
)
_bad("with a text bomb", lambda: _png(8, 8, more=_chunk(b"zTXt", _squeezed_text())), heavy=True)
_good("with a broken EXIF", encoded(_RGB, "JPEG", exif=_BROKEN_EXIF), "odd.jpg")


def _stored(values: list[Any], **data: Any) -> Given:
    """Images in memory, as bytes and paths."""
    features = Features({"image": ImageFeature(decode=False), "label": Value("string")})
    labels = ["ants", "bees"] * (len(values) // 2) + ["ants"] * (len(values) % 2)
    return {
        "source": Dataset.from_dict({"image": values, "label": labels}, features=features),
        "test_split": None,
        **data,
    }


_STORED = [{"bytes": encoded(picture(n)), "path": None} for n in range(16)]


def _numpy(array: np.ndarray, pickled: bool = False) -> dict[str, Any]:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return {"bytes": buffer.getvalue(), "path": None}


def _promise(shape: tuple[int, ...]) -> dict[str, Any]:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return {"bytes": buffer.getvalue() + bytes(64), "path": None}


def _memory(name: str, *bad: Any, **expected: Any) -> None:
    CORPUS.add(f"image {name}", lambda folder: _stored([*_STORED, *bad]), **expected)


_memory("that is missing", None, refused="row 16: the image cannot be decoded: there is no image")
_memory("at no path", {"bytes": None, "path": "/no/such/file.png"}, refused=r"row 16 .*No such file")
_memory("at an empty path", {"bytes": None, "path": ""}, refused="row 16")
_memory("at a path with a NUL", {"bytes": None, "path": "a\0b.png"}, refused="row 16")
_memory("at a path of 10,000 letters", {"bytes": None, "path": "a" * 10_000}, refused="row 16 .*File name too long")
_memory("at the path of a folder", {"bytes": None, "path": "/tmp"}, refused="row 16 .*it is a folder")
_memory("of an array that is a promise", _promise((10**6, 10**6)), refused="row 16: .*the array says shape .1000000")
_memory("of a pickled array", _numpy(np.array([{}, None]), pickled=True), refused="row 16: .*array")
_memory("of an array of text", _numpy(np.array([["a"]])), refused="row 16: .*shape .1, 1. and type <U1")
_memory("of an array of no pixels", _numpy(np.zeros((0, 3))), refused="row 16: .*shape .0, 3.")


@CORPUS(refused="16 of 16 rows cannot be used.*No such file|File name too long")
def _image_column_of_base64(folder: Path) -> Given:
    import base64

    values = [base64.b64encode(encoded(picture(n))).decode() for n in range(16)]
    return {
        "source": Dataset.from_dict({"image": values, "label": ["a", "b"] * 8}),
        "image": "image",
        "test_split": None,
    }


@CORPUS(refused="Which column is the image")
def _no_image_column(folder: Path) -> Given:
    return {"source": Dataset.from_dict({"n": list(range(16)), "label": ["a", "b"] * 8}), "test_split": None}


@CORPUS(says=f"4 broken rows left out.*{_TWO}", skipped=4)
def _images_of_which_four_are_broken_and_skipped(folder: Path) -> Given:
    class_folders(folder)
    for name, content in {"a.jpg": _WHOLE[:99], "b.png": b"", "c.svg": b"<svg/>", "d.heic": b"\0" * 99}.items():
        (folder / "bees" / name).write_bytes(content)
    return {"dataset": str(folder), "test_split": None, "on_error": "skip"}


@CORPUS(refused="row 8 .*pipe.jpg.: .*it is not a regular file")
def _image_that_is_a_pipe(folder: Path) -> Given:
    class_folders(folder)
    os.mkfifo(folder / "ants" / "pipe.jpg")
    return {"dataset": str(folder), "test_split": None}
