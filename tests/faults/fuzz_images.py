"""Fuzzing what decodes images: files of every kind with bytes changed, for the data room and for the endpoint.

    python tests/faults/fuzz_images.py --images 20000

A changed file is decoded, or refused by an OSError (data) or an UnsafeImage (endpoint), within five seconds and
without a gigabyte. Figures go to benchmarks/results/faults_fuzz_images.json.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import numpy as np  # noqa: E402
from PIL import Image, features  # noqa: E402

from hf_finetune.data.images import decode_image  # noqa: E402
from hf_finetune.publish.serve_images import UnsafeImage, open_safely  # noqa: E402

SLOWEST = 5.0
_PIXELS = 40_000_000


def files() -> dict[str, bytes]:
    """A small picture in every kind of file that this Pillow writes."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 50
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "png": ("PNG", {"exif": exif}),
        "jpeg": ("JPEG", {"exif": exif}),
        "progressive": ("JPEG", {"progressive": True}),
        "webp": ("WEBP", {"exif": exif}),
        "gif": ("GIF", {}),
        "bmp": ("BMP", {}),
        "tiff": ("TIFF", {}),
        "tiff_lzw": ("TIFF", {"compression": "tiff_lzw"}),
        "tiff_jpeg": ("TIFF", {"compression": "jpeg"}),
        "ppm": ("PPM", {}),
        "ico": ("ICO", {}),
    }
    if features.check("jpg_2000"):
        kinds["jp2"] = ("JPEG2000", {})
    if features.check("avif"):
        kinds["avif"] = ("AVIF", {})
    made = {}
    for name, (kind, options) in kinds.items():
        kept = io.BytesIO()
        picture.save(kept, kind, **options)
        made[name] = kept.getvalue()
    return made


def changed(content: bytes, draw: random.Random) -> bytes:
    """Some bytes other, mostly among the first, where sizes and tables stand; or cut, or doubled."""
    kind = draw.random()
    if kind < 0.1:
        return content[: draw.randrange(len(content))]
    if kind < 0.15:
        at = draw.randrange(len(content))
        return content[:at] + content[max(0, at - 50) :]
    letters = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(min(len(letters), 200)) if draw.random() < 0.6 else draw.randrange(len(letters))
        letters[at] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    return bytes(letters)


def fuzz_images(count: int, seed: int = 0) -> dict[str, Any]:
    """Decode so many changed files, and count what became of them."""
    draw, kinds = random.Random(seed), files()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    slowest, began = 0.0, time.perf_counter()
    for number in range(count):
        name = list(kinds)[number % len(kinds)]
        content = changed(kinds[name], draw)
        start = time.perf_counter()
        for reader in (_data, _endpoint):
            try:
                outcome = reader(content)
            except Exception as fault:
                outcome = f"crash in {reader.__name__} of {name}: {type(fault).__name__}: {fault}"[:200]
                wrong.append(outcome)
                outcome = "wrong"
            counts[f"{reader.__name__.strip('_')} {outcome}"] += 1
        took = time.perf_counter() - start
        if took > SLOWEST:
            wrong.append(f"{name}: {took:.1f} s")
        slowest = max(slowest, took)
    return {
        "images": count,
        **counts,
        "wrong": len(wrong),
        "first_wrong": wrong[:20],
        "slowest_seconds": round(slowest, 3),
        "seconds": round(time.perf_counter() - began, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _data(content: bytes) -> str:
    try:
        image = decode_image(content)
    except OSError:
        return "refused"
    return "decoded" if image.mode == "RGB" else "wrong"


def _endpoint(content: bytes) -> str:
    try:
        image, _ = open_safely(content, _PIXELS)
    except UnsafeImage:
        return "refused"
    try:
        decode_image(image)
    except OSError:
        return "refused"
    return "decoded"


def main() -> int:
    """Fuzz, and write the figures; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    figures = fuzz_images(given.images, given.seed)
    out = REPOSITORY / "benchmarks" / "results" / "faults_fuzz_images.json"
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(figures)
    return bool(figures["wrong"])


if __name__ == "__main__":
    sys.exit(main())
