"""What a file really is, by its first bytes: for the message where it is not what its name says."""

from __future__ import annotations

from pathlib import Path

# Endings of files that Pillow reads.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff"),
    *(".webp", ".ppm", ".pgm", ".pbm", ".jfif", ".jp2"),
)
# (where, bytes) -> what it is, and what to do.
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself: git lfs pull fetches it"),
    (0, b"PK\x03\x04", "a zip archive (an Excel workbook is one): unpack it, or save it as csv"),
    (0, b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as csv"),
    (0, b"\x1f\x8b", "gzip: let its name end in .gz, or unpack it"),
    (0, b"PAR1", "parquet: let its name end in .parquet"),
    (0, b"ARROW1", "an Arrow file: save it as parquet"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x93NUMPY", "a numpy array: let its name end in .npy"),
    (0, b"8BPS", "a Photoshop file: save it as PNG"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"SQLite format 3", "an SQLite database: save the table as csv"),
)
# What Pillow reads: no fault of an image, but of a table.
_PICTURES = ((0, b"\x89PNG", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"GIF8", "GIF"), (8, b"WEBP", "WebP"))
# Brands of the "ftyp" box of ISO media files, https://mp4ra.org
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_SHOWN = 512


def kind_of(head: bytes, *, pictures: bool = False) -> str | None:
    """What a file is that begins like this, and what to do about it; None where nothing is known.

    Args:
        head: the first 512 bytes or more.
        pictures: whether an image that Pillow reads is told as well.
    """
    if pictures and (found := [name for place, magic, name in _PICTURES if head[place:].startswith(magic)]):
        return f"an image ({found[0]}), not a table"
    for place, magic, words in _KINDS:
        if head[place:].startswith(magic):
            return words
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIF:
            return "a HEIC image: save it as JPEG or PNG"
        return "an AVIF image: save it as JPEG or PNG" if head[8:12] == b"avif" else "a video"
    start = head[:_SHOWN].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "an SVG drawing: draw it as PNG"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (a download that failed?)"
    return "nothing but zeros (a write that was cut off?)" if len(head) >= 16 and not head.strip(b"\0") else None


def kind_of_file(path: Path, *, pictures: bool = False) -> str | None:
    """`kind_of` a file; None where it cannot be read."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return kind_of(file.read(_SHOWN), pictures=pictures)
    except (OSError, ValueError):
        return None
