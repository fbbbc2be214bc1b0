"""Small data for the tests of the data room: recipes, images of every mode, folders with broken files, processors."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import ConvNextImageProcessor, MobileNetV2ImageProcessor, ViTImageProcessor
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from hf_finetune.recipes.schema import Recipe

TIMM = {
    "input_size": [3, 32, 32],
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
}
# Each resizes in its own way; every one gives images of 32 pixels' height.
PROCESSORS = {
    "vit": lambda: ViTImageProcessor(size={"height": 32, "width": 48}),
    "mobilenet": lambda: MobileNetV2ImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "convnext": lambda: ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    "timm": lambda: TimmWrapperImageProcessor(TIMM),
}


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Caches of `datasets` in a folder of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make_recipe(dataset, task: str = "text-classification", seed: int = 0, **data) -> Recipe:
    return Recipe(task=task, model={"checkpoint": "none"}, data={"dataset": dataset, **data}, seed=seed)


def image_recipe(dataset, seed: int = 0, **data) -> Recipe:
    return make_recipe(dataset, "image-classification", seed, **data)


def photo(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth coloured picture, (width, height), different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def rotated_by_exif(image: Image.Image) -> bytes:
    """A JPEG that viewers turn by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif, quality=95)


def deep_grey(seed: int = 0) -> Image.Image:
    """16-bit grey whose values use the full range."""
    coarse = np.asarray(photo(seed).convert("L")).astype(np.uint16) * 257
    return Image.fromarray(coarse)


def broken_folder(root: Path, each: int = 12) -> tuple[Path, Path, Path]:
    """A folder of class folders with odd but good images, and two that cannot be decoded.

    Returns:
        the folder, a truncated JPEG in it, a text file named .jpg in it.
    """
    for place, name in enumerate(("ants", "bees")):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for seed in range(each):
            photo(100 * place + seed).save(folder / f"{seed:02}.jpg")
    photo(50).convert("CMYK").save(root / "train" / "ants" / "cmyk.jpg")
    deep_grey(51).save(root / "train" / "bees" / "deep.png")
    (root / "train" / "bees" / "turned.jpg").write_bytes(rotated_by_exif(photo(52)))
    truncated, text = root / "train" / "ants" / "half.jpg", root / "train" / "bees" / "notes.jpg"
    whole = encoded(photo(53, (200, 150)), "JPEG")
    truncated.write_bytes(whole[: len(whole) // 2])
    text.write_text("these are notes, not an image")
    for place, name in enumerate(("ants", "bees")):
        folder = root / "test" / name
        folder.mkdir(parents=True)
        for seed in range(4):
            photo(1000 + 100 * place + seed).save(folder / f"{seed:02}.jpg")
    return root, truncated, text
