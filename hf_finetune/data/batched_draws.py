"""Samples for `batched_changes`: pixels, and the numbers drawn for each image by (seed, epoch, id)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from hf_finetune.data.augment import RandomChanges, drawn_place, makers_of, random_box
from hf_finetune.data.batched_changes import CHANGES, Drawn, Target
from hf_finetune.data.batched_policies import recorded, turn
from hf_finetune.data.epoch import generator_of, torch_random
from hf_finetune.data.final_pixels import NORMALIZATION, FinalPixels
from hf_finetune.recipes.schema import ImageAugment

# Images of sides longer than so many times the final ones are cut out and resized on the host: what travels, and what
# the device resizes, stays small, and decoding them takes far longer than this.
_LONGEST = 2.5
Sample = dict[str, Any]
Draw = Callable[[], np.ndarray]


class BatchedAugmentation(RandomChanges):
    """As `Augmentation`, but its samples are unchanged, with what is to be done to them on the device; no `aug_mix`."""

    def __init__(self, augment: ImageAugment, processor: Any, seed: int) -> None:
        super().__init__(augment, processor, seed)
        self.target = Target(self.final.height, self.final.width, int(self.final.resample))
        self.fill = np.array(self.final.mean_color, np.float32)
        self.draws = draws_of(augment, self.final)

    @property
    def of_levels(self) -> bool:
        """Whether its images are the processor's own levels: without a crop it is the processor that places them."""
        return not self.augment.crop and self.levels is not None

    def of_decoded(self, images: Sequence[np.ndarray], epoch: int, rows: Sequence[int]) -> list[Sample]:
        """Samples of images, uint8 (height, width, 3), with their ids."""
        if not self.augment.crop:
            shown = self.final.images([Image.fromarray(image) for image in images])
            images = [np.asarray(image) for image in shown]
        return [self._sample(image, epoch, row) for image, row in zip(images, rows, strict=True)]

    def changes(self, epoch: int, row: int) -> Drawn:
        """What is drawn for an image of the final size."""
        return Drawn(self.target, self._rest(generator_of(self.seed, epoch, row)))

    def _sample(self, image: np.ndarray, epoch: int, row: int) -> Sample:
        rng = generator_of(self.seed, epoch, row)
        drawn: dict[str, np.ndarray] = {}
        if self.augment.crop:
            height, width = image.shape[:2]
            box = random_box(width, height, self.augment.crop, rng)
            if height > _LONGEST * self.target.height or width > _LONGEST * self.target.width:
                image = np.asarray(self.final.region(Image.fromarray(image), box))
                height, width = image.shape[:2]
                box = (0.0, 0.0, float(width), float(height))
            drawn = {"box": np.array(box, np.float32), "size": np.array([height, width])}
        pixels = torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)
        changes = drawn | self._rest(rng)
        return {"pixel_values": pixels, NORMALIZATION: self.final.normalization, CHANGES: Drawn(self.target, changes)}

    def _rest(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn = {"fill": self.fill}
        place = drawn_place(self.target.width, self.target.height, self.augment, rng)
        if self.augment.pad_crop:
            drawn["shift"] = np.array(place[:2])
        if self.augment.flip or self.augment.vertical_flip:
            drawn["mirror"] = np.array(place[2:])
        if self.draws:
            with torch_random(int(rng.integers(2**63))):
                drawn |= {name: draw() for name, draw in self.draws}
        return drawn


def draws_of(augment: ImageAugment, final: FinalPixels) -> list[tuple[str, Draw]]:
    """What is drawn for one image from torch's global generator, by name, in the order of the recipe.

    As torchvision's transforms of the same strengths draw it.
    """
    size = final.height, final.width
    made = {name: make() for name, make in makers_of(augment, final).items() if getattr(augment, name)}
    ways: dict[str, Callable[[Any], np.ndarray]] = {
        "rotation": lambda rotation: np.array(turn(rotation.make_params([])["angle"], size), np.float32),
        "color_jitter": _jitter,
        "grey": lambda grey: (torch.rand(1) < grey.p).float().numpy(),
        "blur": lambda blur: np.array([blur.radius()], np.float32),
        "rand_augment": lambda policy: recorded(policy, size),
        "trivial_augment": lambda policy: recorded(policy, size),
    }
    found: list[tuple[str, Draw]] = [(name, partial(ways[name], operation)) for name, operation in made.items()]
    if augment.erasing:
        # One colour, because the noise is the device's: drawing it here would take longer than all else.
        found.append(("erase", partial(_rectangle, v2.RandomErasing(augment.erasing, value=0), torch.empty(3, *size))))
    return found


def _jitter(jitter: v2.ColorJitter) -> np.ndarray:
    """Three steps in their order, (3, 2): what is blended with, and the factor."""
    drawn = jitter.make_params([])
    named = (drawn[f"{name}_factor"] for name in ("brightness", "contrast", "saturation"))
    factors = [1.0 if factor is None else factor for factor in named]  # none where the strength is next to nothing
    return np.array([(kind, factors[kind]) for kind in drawn["fn_idx"].tolist() if kind < 3], np.float32)


def _rectangle(erasing: v2.RandomErasing, shown: torch.Tensor) -> np.ndarray:
    """Top, left, height and width of what is erased, and the key of its noise; all 0 for none."""
    if torch.rand(1) >= erasing.p:
        return np.zeros(5, np.int64)
    found = erasing.make_params([shown])
    if found["v"] is None:  # ten rectangles did not fit
        return np.zeros(5, np.int64)
    return np.array([*(found[name] for name in "ijhw"), int(torch.randint(2**32, ()))], np.int64)
