"""RandAugment and TrivialAugment of a batch: torchvision's operations, each image its own."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from hf_finetune.data import batched_color as color
from hf_finetune.data.batched_resize import warped

# The operations that are no affine transform, numbered as `changed` takes them; IDENTITY stands for the others.
IDENTITY, BLEND, POSTERIZE, SOLARIZE, AUTO_CONTRAST, EQUALIZE, WARP = range(7)
_BLENDS = {
    "Brightness": color.BRIGHTNESS,
    "Contrast": color.CONTRAST,
    "Color": color.SATURATION,
    "Sharpness": color.SHARPNESS,
}
_OTHERS = {
    "Identity": IDENTITY,
    "Posterize": POSTERIZE,
    "Solarize": SOLARIZE,
    "AutoContrast": AUTO_CONTRAST,
    "Equalize": EQUALIZE,
}
WIDTH = 9  # numbers of an operation: which, what is blended with, strength, and the six of an affine transform
_STAY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def recorded(policy: v2.RandAugment | v2.TrivialAugmentWide, size: tuple[int, int]) -> np.ndarray:
    """The operations that torchvision's transform draws for an image from torch's global generator; none is done.

    Args:
        policy: the transform.
        size: height and width of the image.

    Returns:
        float32 (operations, WIDTH).
    """
    found: list[list[float]] = []

    def record(image: Any, transform_id: str, magnitude: float, **_: Any) -> Any:
        found.append(_numbers(transform_id, magnitude, size))
        return image

    noting: Any = copy.copy(policy)
    noting._apply_image_or_video_transform = record
    noting(_blank(size))
    return np.array(found, np.float32)


@cache
def _blank(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size[::-1])


def _numbers(name: str, strength: float, size: tuple[int, int]) -> list[float]:
    if name in _BLENDS:
        return [BLEND, _BLENDS[name], 1.0 + strength, *_STAY]
    if name in _OTHERS:
        value = {"Posterize": int(strength), "Solarize": 255.0 * strength}.get(name, 0.0)
        return [_OTHERS[name], 0, value, *_STAY]
    moves: dict[str, tuple[float, ...]] = {
        "ShearX": (1, strength, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, strength, 1, 0),
        "TranslateX": (1, 0, -int(strength), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(strength)),
    }
    return [WARP, 0, 0, *(turn(strength, size) if name == "Rotate" else moves[name])]


def turn(degrees: float, size: tuple[int, int]) -> tuple[float, ...]:
    """The affine transform by which Pillow turns an image of (height, width) about its centre, counterclockwise."""
    angle = -math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    across, down = size[1] / 2, size[0] / 2
    return (
        *(cosine, sine, across - cosine * across - sine * down),
        *(-sine, cosine, down + sine * across - cosine * down),
    )


def changed(levels: torch.Tensor, drawn: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) of whole levels by the operations (N, operations, WIDTH), one after the other."""
    for operation in drawn.unbind(1):
        kind, strength = operation[:, 0].view(-1, 1, 1, 1), operation[:, 2]
        done = torch.where(kind == WARP, warped(levels, operation[:, 3:], fill), levels)
        done = torch.where(kind == BLEND, color.blended(levels, operation[:, 1], strength, sharpness=True), done)
        done = torch.where(kind == POSTERIZE, color.posterized(levels, strength), done)
        done = torch.where(kind == SOLARIZE, color.solarized(levels, strength), done)
        done = torch.where(kind == AUTO_CONTRAST, color.stretched(levels), done)
        levels = torch.where(kind == EQUALIZE, color.equalized(levels), done)
    return levels
