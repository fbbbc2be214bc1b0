"""Test-time augmentation: several views of an image, whose logits are averaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch.nn import functional

Views = Literal["none", "flip", "five_crop", "ten_crop"]
# Crops of 224 of 256 pixels, as Krizhevsky et al. 2012 took four corners and the centre, and mirrored them.
_CROP = 7 / 8


def views_of(pixels: torch.Tensor, kind: Views) -> Iterator[torch.Tensor]:
    """Views of images (N, C, H, W), one after the other, each (N, C, H, W).

    A crop is cut from the processor's pixels and resized to their size, which every model takes.

    Args:
        pixels: as the processor gives them.
        kind: `flip` is the image and its mirror image; `five_crop` four corners and the centre; `ten_crop` these and
            their mirror images.
    """
    for view in _crops(pixels) if kind in ("five_crop", "ten_crop") else [pixels]:
        yield view
        if kind in ("flip", "ten_crop"):
            yield view.flip(-1)


def _crops(pixels: torch.Tensor) -> Iterator[torch.Tensor]:
    height, width = pixels.shape[-2:]
    down, across = max(1, round(height * _CROP)), max(1, round(width * _CROP))
    bottom, right = height - down, width - across
    for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)):
        crop = pixels[..., top : top + down, left : left + across]
        yield functional.interpolate(crop, (height, width), mode="bilinear", align_corners=False)
