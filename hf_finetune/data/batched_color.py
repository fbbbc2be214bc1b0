"""Changes of colour of a batch, each image by its own operation and strength; levels as Pillow computes them."""

from __future__ import annotations

import torch
from torch.nn import functional

_LUMA = (19595.0, 38470.0, 7471.0)  # of 65536, as Pillow converts to grey

# What an image is drawn towards or away from: black, its mean grey, its grey, itself smoothed.
BRIGHTNESS, CONTRAST, SATURATION, SHARPNESS = range(4)


def grey_of(levels: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) of whole levels as grey ones, (N, 1, H, W)."""
    red, green, blue = levels.split(1, dim=1)
    return ((red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2] + 32768.0) / 65536.0).floor()


def blended(levels: torch.Tensor, kinds: torch.Tensor, factors: torch.Tensor, sharpness: bool = False) -> torch.Tensor:
    """Each image of (N, 3, H, W) away from what `kinds` (N,) says by `factors` (N,): 1 leaves it as it is.

    Args:
        levels: whole levels, float32.
        kinds: BRIGHTNESS, CONTRAST, SATURATION or SHARPNESS.
        factors: 0 is black, grey or smooth altogether.
        sharpness: whether any kind is SHARPNESS.
    """
    kind, factor = kinds.view(-1, 1, 1, 1), factors.float().view(-1, 1, 1, 1)
    grey = grey_of(levels)
    # Sums of whole numbers: the same in any order.
    total = grey.sum(dim=(1, 2, 3), keepdim=True, dtype=_exact(levels))
    mean = (total / grey[0].numel() + 0.5).floor().float()
    start = torch.where(kind == CONTRAST, mean, torch.where(kind == SATURATION, grey, 0.0))
    if sharpness:
        start = torch.where(kind == SHARPNESS, smoothed(levels), start)
    # Pillow cuts off what is behind the point; so much more than a level's whole number is rounding.
    return torch.addcmul(start, factor, levels - start).add_(1e-3).floor_().clamp_(0, 255)


def _exact(levels: torch.Tensor) -> torch.dtype:
    """A format that holds the sum of an image's levels, where the device has one."""
    return torch.float32 if levels.device.type == "mps" else torch.float64


def smoothed(levels: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) by Pillow's filter SMOOTH; pixels at the edge stay."""
    if min(levels.shape[-2:]) < 3:
        return levels
    # Pillow's weights are 1 all around and 5 in the middle, of 13.
    inner = functional.avg_pool2d(levels, 3, 1, divisor_override=1) + 4 * levels[..., 1:-1, 1:-1]
    found = levels.clone()
    found[..., 1:-1, 1:-1] = (inner / 13 + 0.5).floor()
    return found


def posterized(levels: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """The first `bits` (N,) of eight of each level."""
    step = torch.exp2(8 - bits.float()).view(-1, 1, 1, 1)
    return (levels / step).floor() * step


def solarized(levels: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Levels from `thresholds` (N,) on turned round."""
    return torch.where(levels < thresholds.float().view(-1, 1, 1, 1), levels, 255 - levels)


def stretched(levels: torch.Tensor) -> torch.Tensor:
    """Each channel of each image from its darkest to its lightest level spread over all (Pillow's autocontrast)."""
    low, high = levels.amin((2, 3), keepdim=True), levels.amax((2, 3), keepdim=True)
    spread = ((levels - low) * (255 / (high - low).clamp(min=1)) + 1e-3).floor().clamp(0, 255)
    return torch.where(high > low, spread, levels)


def equalized(levels: torch.Tensor) -> torch.Tensor:
    """Each channel of each image with its levels about equally frequent (Pillow's equalize)."""
    flat = levels.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=levels.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    before = counts.cumsum(2) - counts
    table = (step // 2 + before) // step.clamp(min=1)
    table = torch.where(step > 0, table, torch.arange(256, device=levels.device)).clamp(0, 255)
    return table.gather(2, flat).view(levels.shape).float()
