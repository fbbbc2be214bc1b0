"""Rectangles of noise in a batch (random erasing), the same on every device: a hash of the image's key and the place.

A device's own generator would give other noise in another batch.
"""

from __future__ import annotations

import math

import torch

_MASK = 0xFFFFFFFF


def erased(pixels: torch.Tensor, boxes: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Normalized images with noise from the standard normal distribution in a rectangle of each.

    Args:
        pixels: float32 (N, C, H, W).
        boxes: int64 (N, 4), top, left, height and width; a height of 0 leaves the image as it is.
        keys: int64 (N,), of each image's noise.
    """
    _, colors, height, width = pixels.shape
    top, left, tall, wide = (value.view(-1, 1, 1) for value in boxes.unbind(1))
    y = torch.arange(height, device=pixels.device).view(1, -1, 1)
    x = torch.arange(width, device=pixels.device).view(1, 1, -1)
    inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
    places = torch.arange(colors * height * width, device=pixels.device).view(1, colors, height, width)
    return torch.where(inside[:, None], _normal(places, keys.view(-1, 1, 1, 1)), pixels)


def _normal(places: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Box and Muller's way from two even numbers, of 16 bits each, to a normal one."""
    bits = _mixed(places + _mixed(keys))
    radius = torch.sqrt(-2 * torch.log(((bits >> 16).float() + 1) / 65536))
    return radius * torch.cos(2 * math.pi / 65536 * (bits & 0xFFFF).float())


def _mixed(values: torch.Tensor) -> torch.Tensor:
    """32 bits of each, mixed by lowbias32 (https://nullprogram.com/blog/2018/07/31/)."""
    mixed = values & _MASK
    mixed = ((mixed ^ (mixed >> 16)) * 0x7FEB352D) & _MASK
    mixed = ((mixed ^ (mixed >> 15)) * 0x846CA68B) & _MASK
    return mixed ^ (mixed >> 16)
