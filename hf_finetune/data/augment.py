"""Random changes of training images, by name and strength, in the order of the recipe's keys.

Place and mirror come first (a few lines of ours on PIL), then torchvision's operations, last the processor's
normalization and the erased rectangle. torchvision runs on PIL images: at 224 pixels a rotation takes 0.2 ms so and
1.4 ms on a tensor, RandAugment 0.4 and 1.4 (one core).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from hf_finetune.data.epoch import generator_of, torch_random
from hf_finetune.data.final_pixels import FinalPixels
from hf_finetune.data.levels import Levels
from hf_finetune.recipes.schema import ImageAugment

# A crop keeps at least this share of the image. ImageNet training goes down to 0.08, which a checkpoint needs hundreds
# of epochs to digest; the few epochs of a fine-tuning learn more from crops that still show the object.
_SMALLEST_CROP = 0.6
BASIC = ImageAugment(crop=(_SMALLEST_CROP, 1.0), flip=0.5)
_RATIOS = (3 / 4, 4 / 3)
_PAD_UNIT = 32  # pad_crop counts pixels of an image of this side
_BLUR_RADII = (0.1, 2.0)  # in pixels, as in SimCLR (Chen et al. 2020, arXiv:2002.05709)
Operation = Callable[[Image.Image], Image.Image]


class RandomChanges:
    """What changes images at random: by which names and strengths, and into pixels of what kind.

    What happens to an image depends on (seed, epoch, id) and nothing else: not on workers, processes, or where a run
    was resumed.

    Args:
        augment: names and strengths.
        processor: gives final size, interpolation, mean and standard deviation.
        seed: the recipe's seed.

    Raises:
        UserError: the processor has no fixed output size or does not normalize linearly.
    """

    def __init__(self, augment: ImageAugment, processor: Any, seed: int) -> None:
        self.augment = augment
        self.seed = seed
        self.levels = Levels.of(processor)
        self.final = FinalPixels(processor) if self.levels is None else self.levels.final


class Augmentation(RandomChanges):
    """Changes images as `augment` says, then normalizes as the processor does; arguments as of `RandomChanges`."""

    def __init__(self, augment: ImageAugment, processor: Any, seed: int) -> None:
        super().__init__(augment, processor, seed)
        self.operations = operations_of(augment, self.final)
        # Noise in the place of the rectangle, the best of the fillings that the paper tried.
        self.erase = v2.RandomErasing(augment.erasing, value="random")

    def __call__(self, images: Sequence[Image.Image], epoch: int, rows: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Images, PIL RGB, with their ids, as samples: levels, or float32 with the noise of `erasing` in them."""
        # A random box decides about size and place alone; without one both are the processor's.
        placed = list(images) if self.augment.crop else self._as_processed(images)
        generators = [generator_of(self.seed, epoch, row) for row in rows]
        return [self._change(image, rng) for image, rng in zip(placed, generators, strict=True)]

    def _as_processed(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        if self.levels is None:
            return self.final.images(images)
        return [Image.fromarray(levels.permute(1, 2, 0).numpy()) for levels in self.levels(images)]

    def _change(self, image: Image.Image, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if self.augment.crop:
            image = self.final.region(image, random_box(image.width, image.height, self.augment.crop, rng))
        image = shifted_and_mirrored(image, self.augment, self.final.mean_color, rng)
        if not self.operations and not self.augment.erasing:
            return self.final.sample(image)
        with torch_random(int(rng.integers(2**63))):
            for operation in self.operations:
                image = operation(image)
            if not self.augment.erasing:
                return self.final.sample(image)
            return {"pixel_values": self.erase(self.final.normalized(image))}


def random_box(
    width: int, height: int, area_shares: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A box (left, upper, right, lower) of random area and aspect in the image (Szegedy et al. 2014, arXiv:1409.4842);
    the whole image after ten misses."""
    for _ in range(10):
        area = width * height * rng.uniform(*area_shares)
        ratio = math.exp(rng.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, upper = rng.uniform(0, width - across), rng.uniform(0, height - down)
            return left, upper, left + across, upper + down
    return 0.0, 0.0, float(width), float(height)


def drawn_place(width: int, height: int, augment: ImageAugment, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """What `pad_crop`, `flip` and `vertical_flip` do to an image: pixels down and across, mirrored, upside down."""
    down = across = 0
    if augment.pad_crop:
        most = [round(augment.pad_crop * side / _PAD_UNIT) for side in (width, height)]
        across, down = (int(rng.integers(-pad, pad + 1)) for pad in most)
    mirrored = augment.flip and rng.random() < augment.flip
    upside_down = augment.vertical_flip and rng.random() < augment.vertical_flip
    return down, across, int(mirrored), int(upside_down)


def shifted_and_mirrored(
    image: Image.Image, augment: ImageAugment, outside: tuple[int, ...], rng: np.random.Generator
) -> Image.Image:
    """`pad_crop`, `flip` and `vertical_flip` of an image; what comes in from outside has the colour `outside`."""
    down, across, mirrored, upside_down = drawn_place(image.width, image.height, augment, rng)
    if augment.pad_crop:
        moved = Image.new(image.mode, image.size, outside)
        moved.paste(image, (across, down))
        image = moved
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if upside_down:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def operations_of(augment: ImageAugment, final: FinalPixels) -> list[Operation]:
    """The operations on PIL images that a recipe names, in its order; they draw from torch's global generator."""
    return [make() for name, make in makers_of(augment, final).items() if getattr(augment, name)]


def makers_of(augment: ImageAugment, final: FinalPixels) -> dict[str, Callable[[], Any]]:
    """What makes each operation on PIL images, by the names of the recipe, in its order."""
    fill = list(final.mean_color)
    smooth: Any = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": fill}
    jitter = augment.color_jitter
    return {
        "rotation": lambda: v2.RandomRotation(augment.rotation, **smooth),
        "color_jitter": lambda: v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter),
        "grey": lambda: v2.RandomGrayscale(augment.grey),
        "blur": lambda: RandomBlur(augment.blur),
        "rand_augment": lambda: v2.RandAugment(magnitude=augment.rand_augment, **smooth),
        "trivial_augment": lambda: v2.TrivialAugmentWide(**smooth),
        "aug_mix": lambda: v2.AugMix(severity=augment.aug_mix, **smooth),
    }


class RandomBlur:
    """A Gaussian blur with a chance. Pillow's takes 1 ms at 224 pixels, torchvision's 12."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def __call__(self, image: Image.Image) -> Image.Image:
        """An image of any size."""
        radius = self.radius()
        return image.filter(ImageFilter.GaussianBlur(radius)) if radius else image

    def radius(self) -> float:
        """Of the next image's blur, in pixels; 0 for none."""
        chance, place = torch.rand(2).tolist()
        least, most = _BLUR_RADII
        return float(least + (most - least) * place) if chance < self.chance else 0.0
