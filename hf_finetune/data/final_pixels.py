"""What a checkpoint's image processor does in the end: its final size, interpolation and normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_finetune.errors import UserError

NORMALIZATION = "normalization"  # a batch's key: float32 (2, channels), scale and offset of its levels


class FinalPixels:
    """A processor's output as images of 8 bits, and back, so that changes can be made in between.

    Args:
        processor: an image processor of transformers, TimmWrapper's included.

    Raises:
        UserError: the processor has no fixed output size or does not normalize linearly.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.height, self.width = _final_size(processor)
        self.scale, self.offset = _normalization(processor, (self.height, self.width))
        self.normalization = torch.stack([self.scale.flatten(), self.offset.flatten()])
        self.resample = Image.Resampling(_resample(processor))
        mean = (-self.offset / self.scale).round().clamp(0, 255).flatten().int().tolist()
        # What normalizes to about 0, as the zeros that padded the mean-subtracted images of He et al. 2016.
        self.mean_color: tuple[int, ...] = tuple(mean)

    def images(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Images as the processor resizes and crops them: PIL RGB of the final size."""
        levels = self.levels(torch.stack(self.pixels(images)))
        return [Image.fromarray(image) for image in levels.permute(0, 2, 3, 1).numpy()]

    def pixels(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Images as the processor makes them: float32 (channels, height, width) each."""
        return list(self.processor(list(images), return_tensors="pt")["pixel_values"])

    def levels(self, pixels: torch.Tensor) -> torch.Tensor:
        """The levels of 0 to 255 that pixels (..., channels, height, width) are nearest to, uint8."""
        return ((pixels - self.offset) / self.scale).round().clamp(0, 255).to(torch.uint8)

    def region(self, image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
        """A box (left, upper, right, lower) of an image, resized to the final size."""
        return image.resize((self.width, self.height), self.resample, box=box)

    def sample(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """A PIL RGB image of the final size as a sample of levels; see `image_samples`."""
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return {"pixel_values": levels, NORMALIZATION: self.normalization}

    def normalized(self, image: Image.Image) -> torch.Tensor:
        """A PIL RGB image of the final size as float32 (channels, height, width), normalized as the processor does."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.float().mul_(self.scale).add_(self.offset)


def _final_size(processor: Any) -> tuple[int, int]:
    """Height and width of the processor's output, found by trying two images."""
    shapes = {tuple(_run(processor, Image.new("RGB", (side, side))).shape[1:]) for side in (64, 160)}
    if len(shapes) > 1:
        raise UserError(
            "The checkpoint's processor keeps the size of images, so that augmented images have no size to be resized "
            "to. Say data.augment=none."
        )
    height, width = shapes.pop()
    return height, width


def _normalization(processor: Any, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset of each channel, shape (3, 1, 1) each, read off its answers to black, white and grey."""
    black, white, grey = (
        _run(processor, Image.new("RGB", size[::-1], (level,) * 3)).amax(dim=(1, 2)).double() for level in (0, 255, 100)
    )
    scale = (white - black) / 255
    if not torch.allclose(black + 100 * scale, grey, atol=1e-4):
        raise UserError(
            "The checkpoint's processor does not normalize pixels linearly, so that augmented images cannot be "
            "normalized alike. Say data.augment=none."
        )
    return scale.float().view(-1, 1, 1), black.float().view(-1, 1, 1)


def _run(processor: Any, image: Image.Image) -> torch.Tensor:
    pixels: torch.Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    return pixels


def _resample(processor: Any) -> int:
    """The processor's interpolation as PIL numbers it; bilinear where it does not say."""
    config = getattr(processor, "data_config", None)
    if config is not None:  # timm's words
        words = {"bilinear": 2, "bicubic": 3, "nearest": 0, "lanczos": 1, "box": 4, "hamming": 5}
        return words.get(config.get("interpolation", ""), 2)
    resample = getattr(processor, "resample", None)
    return 2 if resample is None else int(resample)
