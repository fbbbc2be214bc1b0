"""Random changes of a whole batch of images in one pass on the device that trains.

A sample brings its pixels as they were decoded (or as the processor places them) and the numbers drawn for it; here a
batch of them becomes what the model takes. The numbers are those that `augment.Augmentation` would draw, and so are
the pixels, to a level or two; the noise of erasing alone is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from hf_finetune.data import batched_color as color
from hf_finetune.data import batched_policies as policies
from hf_finetune.data.batched_noise import erased
from hf_finetune.data.batched_resize import blurred, cut_out, warped

CHANGES = "changes"  # a sample's key, of Drawn; a batch's, of Changes
_AT_ONCE = 64  # images, so that the memory of the pass does not grow with the batch


class Target(NamedTuple):
    """What comes out: height, width, the interpolation that leads there (as Pillow numbers it)."""

    height: int
    width: int
    resample: int


class Drawn(NamedTuple):
    """What was drawn for one image, by the name of the change."""

    target: Target
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Changes:
    """What is to be done with the images of a batch.

    Args:
        target: the size of what comes out.
        values: by the name of the change, of each image, (N, ...); "fill" is the colour of what comes in from outside.
    """

    target: Target
    values: dict[str, torch.Tensor]

    @classmethod
    def of(cls, drawn: Sequence[Drawn]) -> Changes:
        """The changes of a batch."""
        target, first = drawn[0]
        return cls(target, {name: torch.from_numpy(np.stack([one.values[name] for one in drawn])) for name in first})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Changes:
        """On a device, as a tensor goes there: accelerate and `torch.utils.data` know what has such a method."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self.values.items()}
        return replace(self, values=moved)

    def pin_memory(self) -> Changes:
        """In pinned memory."""
        return replace(self, values={name: value.pin_memory() for name, value in self.values.items()})

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """The batch as the model takes it, float32 (N, 3, height, width), on the device of its levels.

        Args:
            pixels: uint8 (N, 3, h, w), smaller images in the upper left corner.
            scale, offset: (3, 1, 1), of the normalization.
        """
        values = self.to(pixels.device).values
        parts = [
            self._part(pixels[place : place + _AT_ONCE], {k: v[place : place + _AT_ONCE] for k, v in values.items()})
            .mul_(scale)
            .add_(offset)
            for place in range(0, len(pixels), _AT_ONCE)
        ]
        if "erase" in values:
            cuts = values["erase"].split(_AT_ONCE)
            parts = [erased(part, cut[:, :4], cut[:, 4]) for part, cut in zip(parts, cuts, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _part(self, pixels: torch.Tensor, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Levels changed, float32, in the order of the recipe's keys."""
        fill = values["fill"][0].view(-1, 1, 1)
        if "box" in values:
            final = self.target.height, self.target.width
            pixels = cut_out(pixels, values["box"], values["size"], final, self.target.resample)
        for name, change in _MOVES.items():
            if name in values:
                pixels = change(pixels, values[name], fill)
        levels = pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        for name, change in _CHANGES.items():
            if name in values:
                levels = change(levels, values[name], fill)
        return levels


def shifted(pixels: torch.Tensor, shifts: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) moved by whole pixels (N, 2), down and across; `fill` (C, 1, 1) comes in from outside."""
    count, colors, height, width = pixels.shape
    rows, columns = (
        torch.arange(side, device=pixels.device) - shift.view(-1, 1)
        for side, shift in zip((height, width), shifts.unbind(1), strict=True)
    )
    image = torch.arange(count, device=pixels.device).view(-1, 1, 1, 1)
    channel = torch.arange(colors, device=pixels.device).view(1, -1, 1, 1)
    found = pixels[
        image,
        channel,
        rows.clamp(0, height - 1).view(count, 1, -1, 1),
        columns.clamp(0, width - 1).view(count, 1, 1, -1),
    ]
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
    return torch.where(inside.unsqueeze(1), found, fill.to(found.dtype))


def mirrored(pixels: torch.Tensor, sides: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W), each left to right, upside down, both or neither, as (N, 2) says."""
    for place, dimension in enumerate((-1, -2)):
        pixels = torch.where(sides[:, place].view(-1, 1, 1, 1) > 0, pixels.flip(dimension), pixels)
    return pixels


def _jittered(levels: torch.Tensor, drawn: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    for step in drawn.unbind(1):
        levels = color.blended(levels, step[:, 0], step[:, 1])
    return levels


def _greyed(levels: torch.Tensor, drawn: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    return torch.where(drawn.view(-1, 1, 1, 1) > 0, color.grey_of(levels), levels)


def _blurred(levels: torch.Tensor, drawn: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    return blurred(levels, drawn[:, 0])


# In the order of the recipe's keys: of pixels of any type, and, by its own names, of levels as float32.
_MOVES: dict[str, Any] = {"shift": shifted, "mirror": mirrored}
_CHANGES: dict[str, Any] = {
    "rotation": warped,
    "color_jitter": _jittered,
    "grey": _greyed,
    "blur": _blurred,
    "rand_augment": policies.changed,
    "trivial_augment": policies.changed,
}
