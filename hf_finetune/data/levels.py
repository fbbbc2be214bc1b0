"""Pixels as the whole levels of 0 to 255 that a processor makes before it normalizes: a quarter of the bytes.

Batches travel so, from the loader's workers to the device that trains; `normalized` is the one place that turns them
into what a model takes. The levels are the processor's own, not a resize like it: another interpolation, or one
without antialiasing, is worth points of accuracy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_finetune.data.batched_changes import CHANGES
from hf_finetune.data.final_pixels import NORMALIZATION, FinalPixels
from hf_finetune.errors import UserError

_SIZES = ((75, 50), (32, 32), (181, 240))  # of the images that the ways are tried on: wide, small, tall
Way = Callable[[Sequence[Image.Image]], list[torch.Tensor]]


class Levels:
    """Makes images (PIL RGB) into levels: uint8 (3, height, width) each, which `normalized` makes the pixels.

    Args:
        final: the processor's size and normalization.
        way: how the levels are found.
    """

    def __init__(self, final: FinalPixels, way: Way) -> None:
        self.final = final
        self.normalization = final.normalization
        self.way = way

    @classmethod
    def of(cls, processor: Any) -> Levels | None:
        """The levels of a processor of colour images; None where its pixels are not levels, scaled and shifted.

        The fastest of three ways is taken that gives, on images of noise, the levels that the pixels come from.
        """
        words = f"{type(processor)} {processor.to_dict()}" if hasattr(processor, "to_dict") else None
        if words is None:
            return cls._of(processor)
        if words not in _FOUND:  # three splits, one processor
            _FOUND[words] = cls._of(copy.deepcopy(processor))
        return _FOUND[words]

    @classmethod
    def _of(cls, processor: Any) -> Levels | None:
        try:
            final = FinalPixels(processor)
        except UserError:
            return None
        rng = np.random.default_rng(0)
        shown = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in _SIZES]
        expected = _read_off(final, shown)
        if expected is None:
            return None
        for way in (_Direct(processor), _Unnormalized(processor)):
            if _agrees(way, shown, expected):
                return cls(final, way)
        return cls(final, _ReadOff(final))

    def __call__(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Images of any sizes; one gives the same levels alone and in company."""
        return self.way(images)


def normalized(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as models take it: pixel_values (N, C, H, W) float32 on the device of the levels; texts as they are.

    Images that bring random changes with them are changed first, in one pass.
    """
    batch = dict(inputs)
    line, changes = batch.pop(NORMALIZATION, None), batch.pop(CHANGES, None)
    if line is None:
        return batch
    scale, offset = line.to(batch["pixel_values"].device).view(2, -1, 1, 1).unbind()
    if changes is not None:
        batch["pixel_values"] = changes(batch["pixel_values"], scale, offset)
        return batch
    # Planes whatever the layout: a model takes the layout of its input, and not every one is faster for it.
    planes = batch["pixel_values"].to(torch.float32, memory_format=torch.contiguous_format)
    batch["pixel_values"] = planes.mul_(scale).add_(offset)
    return batch


_FOUND: dict[str, Levels | None] = {}


class _Direct:
    """The processor's own resize and crop, on images that lie as they were decoded (a colour after the other).

    The same arithmetic as the processor's call, which first copies each image into planes: at 32 pixels four times as
    fast.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        if hasattr(self.processor, "data_config"):
            return [self._timm(image) for image in images]
        found: list[torch.Tensor] = [torch.empty(0)] * len(images)
        sizes: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            sizes.setdefault(image.size, []).append(place)
        for places in sizes.values():
            levels = torch.from_numpy(np.stack([np.asarray(images[place]) for place in places])).permute(0, 3, 1, 2)
            for place, level in zip(places, self._torchvision(levels), strict=True):
                found[place] = level
        return found

    def _torchvision(self, levels: torch.Tensor) -> torch.Tensor:
        processor = self.processor
        if processor.do_resize:
            levels = processor.resize(image=levels, size=processor.size, resample=processor.resample)
        if getattr(processor, "do_center_crop", False):
            levels = processor.center_crop(levels, processor.crop_size)
        return levels

    def _timm(self, image: Image.Image) -> torch.Tensor:
        from timm.data.transforms import MaybeToTensor
        from torchvision.transforms import ToTensor

        for step in self.processor.val_transforms.transforms:
            if isinstance(step, ToTensor | MaybeToTensor):
                break
            image = step(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class _Unnormalized:
    """The processor, told not to normalize."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        found = self.processor(list(images), do_rescale=False, do_normalize=False, return_tensors="pt")
        return list(found["pixel_values"])


class _ReadOff:
    """The processor's pixels, undone."""

    def __init__(self, final: FinalPixels) -> None:
        self.final = final

    def __call__(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        return [self.final.levels(pixels) for pixels in self.final.pixels(images)]


def _read_off(final: FinalPixels, images: Sequence[Image.Image]) -> list[torch.Tensor] | None:
    """The levels that the processor's pixels come from; None where they are none, to a hundredth of a level."""
    found = []
    for image in images:
        [pixels] = final.pixels([image])
        if pixels.shape[0] != 3:
            return None
        levels = final.levels(pixels)
        again = torch.addcmul(final.offset, levels.float(), final.scale)
        if not bool(((pixels - again).abs() <= 0.01 * final.scale.abs()).all()):
            return None
        found.append(levels)
    return found


def _agrees(way: Way, images: Sequence[Image.Image], expected: Sequence[torch.Tensor]) -> bool:
    """Whether a way gives the expected levels, one image at a time and all together."""
    try:
        found = [*way(images), *(way([image])[0] for image in images)]
    except Exception:  # a processor that is called in a way it does not know may raise anything
        return False
    return all(
        mine.dtype == torch.uint8 and torch.equal(mine, theirs)
        for mine, theirs in zip(found, [*expected, *expected], strict=True)
    )
