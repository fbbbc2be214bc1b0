"""What a model sees of an image, and what mattered in it laid over. A Space gets a copy of this file."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_SIDE = 448  # pixels of the longer side


def as_pixels(pixel_values: Any, processor: Any) -> np.ndarray:
    """(height, width, 3) uint8 of what the model gets, before it is normalized; of other channels a grey mean.

    Args:
        pixel_values: tensor (channels, height, width): levels of 0 to 255, or normalized floats.
        processor: that made them.
    """
    pixels = pixel_values.float().numpy()
    if pixel_values.dtype.is_floating_point:
        mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
        if len(pixels) == 3 and mean and std and len(mean) == 3:
            pixels = (pixels * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1))) * 255
        else:
            pixels = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-9) * 255
    if len(pixels) != 3:
        pixels = np.repeat(pixels.mean(axis=0, keepdims=True), 3, axis=0)
    levels: np.ndarray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return levels


def overlaid(pixels: np.ndarray, heat: np.ndarray | None) -> Image.Image:
    """A picture large enough to look at, warm where it mattered.

    Args:
        pixels: (height, width, 3) uint8.
        heat: (h, w) from 0 to 1; None for the picture alone.
    """
    image = Image.fromarray(pixels)
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    if heat is None:
        return image
    small = Image.fromarray(np.rint(heat * 255).astype(np.uint8))
    level = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(np.float64)[..., None] / 255
    warm = np.concatenate([np.full_like(level, 255), 60 + 170 * level, 40 * (1 - level)], axis=-1)
    share = 0.75 * level**0.8
    pale = 0.5 * np.asarray(image) + 0.5 * np.asarray(image.convert("L"))[..., None]  # so that warm stands out of it
    mixed = pale * (1 - share) + warm * share
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
