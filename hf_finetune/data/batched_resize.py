"""A box of each image of a batch, resized as Pillow does, and a blur of each: two products of matrices a batch.

Pillow's resize (antialiased, first across, then down, whole levels in between) is linear along each side, so that a
box of an image and its interpolation are one matrix a side; images of several sizes share a batch with zeros beside
the smaller ones. Weights are multiples of 1/2048: products with levels and their sums are then exact in fp32 and in
TF32, whatever their order, and an image gets the same levels alone and in any company.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

_QUANTUM = 2048
_REACH = 8  # pixels that a blur sees to each side at most


def _lanczos(at: torch.Tensor) -> torch.Tensor:
    return torch.where(at.abs() < 3, torch.sinc(at) * torch.sinc(at / 3), 0.0)


def _triangle(at: torch.Tensor) -> torch.Tensor:
    return (1 - at.abs()).clamp(min=0)


def _cubic(at: torch.Tensor) -> torch.Tensor:
    x = at.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _box(at: torch.Tensor) -> torch.Tensor:
    return ((at > -0.5) & (at <= 0.5)).to(at.dtype)


def _hamming(at: torch.Tensor) -> torch.Tensor:
    return torch.where(at.abs() < 1, torch.sinc(at) * (0.54 + 0.46 * torch.cos(math.pi * at)), 0.0)


Filter = Callable[[torch.Tensor], torch.Tensor]
# As Pillow numbers them, with their reach; 0, the nearest pixel, has none.
_FILTERS: dict[int, tuple[Filter, float]] = {
    1: (_lanczos, 3.0),
    2: (_triangle, 1.0),
    3: (_cubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}


def cut_out(
    pixels: torch.Tensor, boxes: torch.Tensor, sizes: torch.Tensor, final: tuple[int, int], resample: int
) -> torch.Tensor:
    """A box of each image, resized.

    Args:
        pixels: uint8 (N, C, h, w), each image in the upper left corner.
        boxes: (N, 4), left, upper, right and lower side, in pixels of the image.
        sizes: (N, 2), height and width of each image.
        final: height and width of what comes out.
        resample: the interpolation, as Pillow numbers them.

    Returns:
        whole levels, float32 (N, C, height, width).
    """
    height, width = pixels.shape[-2:]
    across = _weights(boxes[:, 0], boxes[:, 2], sizes[:, 1], final[1], width, resample)
    down = _weights(boxes[:, 1], boxes[:, 3], sizes[:, 0], final[0], height, resample)
    return _along_both(pixels.float(), down, across)


def blurred(levels: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """A Gaussian blur of each image (N, C, H, W) by its own standard deviation (N,); 0 leaves it as it is."""
    down, across = (_gaussian(radii, side) for side in levels.shape[-2:])
    return _along_both(levels, down, across)


def _along_both(levels: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Images (N, C, h, w) by (N, H, h) and (N, W, w), float32 (N, C, H, W)."""
    count, colors, height, width = levels.shape
    with torch.autocast(levels.device.type, enabled=False):
        rows = torch.bmm(levels.reshape(count, colors * height, width), across.transpose(1, 2))
        rows = _whole(rows).view(count, colors, height, -1).transpose(1, 2).reshape(count, height, -1)
        found = _whole(torch.bmm(down, rows))
    return found.view(count, found.shape[1], colors, -1).transpose(1, 2).contiguous()


def _whole(values: torch.Tensor) -> torch.Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


def _weights(
    start: torch.Tensor, stop: torch.Tensor, size: torch.Tensor, final: int, longest: int, resample: int
) -> torch.Tensor:
    """What each pixel along a side gives to each that comes out: (N, final, longest), rows that add up to 1."""
    number = torch.float32 if start.device.type == "mps" else torch.float64
    start, stop, size = (value.to(number).view(-1, 1, 1) for value in (start, stop, size))
    scale = (stop - start) / final
    middle = start + (torch.arange(final, device=start.device, dtype=number).view(1, -1, 1) + 0.5) * scale
    place = torch.arange(longest, device=start.device, dtype=number)
    if resample not in _FILTERS:
        return (place == middle.floor().minimum(size - 1)).float()
    shape, reach = _FILTERS[resample]
    stretch = scale.clamp(min=1.0)
    first = (middle - reach * stretch + 0.5).floor().clamp(min=0.0)
    end = (middle + reach * stretch + 0.5).floor().minimum(size)
    weights = torch.where((place >= first) & (place < end), shape((place + 0.5 - middle) / stretch), 0.0)
    return _quantized(weights)


def _gaussian(radii: torch.Tensor, side: int) -> torch.Tensor:
    """The weights of a blur, (N, side, side); beyond an edge its last pixel goes on.

    Three running means, whose length has a fraction, as Pillow's GaussianBlur (Gwosdek et al. 2011).
    """
    number = torch.float32 if radii.device.type == "mps" else torch.float64
    variance = radii.to(number).square().view(-1, 1) / 3
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    inner = 1 / (2 * (whole + part) + 1)
    away = torch.arange(-_REACH, _REACH + 1, device=radii.device, dtype=number).abs()
    once = torch.where(away <= whole, inner, torch.where(away == whole + 1, (1 - inner * (2 * whole + 1)) / 2, 0.0))
    kernel = once
    for _ in range(2):
        steps = range(-3, 4)  # one running mean reaches two pixels
        kernel = sum(once[:, _REACH + step, None] * kernel.roll(step, 1) for step in steps)  # type: ignore[assignment]
    place = torch.arange(-_REACH, side + _REACH, device=radii.device)
    distance = place - torch.arange(side, device=radii.device).view(-1, 1)
    wide = torch.where(distance.abs() <= _REACH, kernel[:, (distance + _REACH).clamp(0, 2 * _REACH)], 0.0)
    found = wide[:, :, _REACH:-_REACH].clone()
    found[:, :, 0] += wide[:, :, :_REACH].sum(-1)
    found[:, :, -1] += wide[:, :, -_REACH:].sum(-1)
    return _quantized(found)


def _quantized(weights: torch.Tensor) -> torch.Tensor:
    """Rows as multiples of the quantum that add up to 1: what rounding leaves goes to the largest."""
    found = (weights / weights.sum(-1, keepdim=True) * _QUANTUM).round()
    largest = found.argmax(-1, keepdim=True)
    found.scatter_add_(-1, largest, _QUANTUM - found.sum(-1, keepdim=True))
    return (found / _QUANTUM).float()


def warped(levels: torch.Tensor, matrices: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) turned, sheared or moved, bilinear.

    Args:
        levels: whole levels, float32.
        matrices: (N, 6), a to f of Pillow's affine transform: pixel (x, y) comes from (a x + b y + c, d x + e y + f).
        fill: (C, 1, 1), what comes in from outside.
    """
    height, width = levels.shape[-2:]
    y = torch.arange(height, device=levels.device, dtype=torch.float32).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=levels.device, dtype=torch.float32).view(1, 1, -1) + 0.5
    a, b, c, d, e, f = (value.view(-1, 1, 1) for value in matrices.float().unbind(1))
    across, down = a * x + b * y + c, d * x + e * y + f
    grid = torch.stack([across * (2 / width) - 1, down * (2 / height) - 1], -1)
    found = functional.grid_sample(levels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    # Pillow cuts off what is behind the point; so much more than a whole number is rounding.
    return torch.where(inside[:, None], (found + 1 / 64).floor_().clamp_(0, 255), fill)
