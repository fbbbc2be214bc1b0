"""Images as the model takes them: the checkpoint's own processor, and basic augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from hf_finetune.data.images import decode_image
from hf_finetune.errors import UserError

# A crop keeps at least this share of the image. ImageNet training goes down to 0.08, which a checkpoint needs hundreds
# of epochs to digest; the few epochs of a fine-tuning learn more from crops that still show the object.
_SMALLEST_CROP = 0.6
_RATIOS = (3 / 4, 4 / 3)
Sample = dict[str, torch.Tensor]


def image_samples(
    split: Dataset, processor: Any, *, train: bool = False, augment: bool = False, seed: int = 0
) -> ImageSamples:
    """A torch data set of {"pixel_values": float32 (channels, height, width), "labels"} in the order of the split.

    Pixels are exactly `processor(image)`; with `train` and `augment` a random resized crop to the processor's final
    size and a flip, normalized as the processor does. A split without a label column gives no "labels".

    Args:
        split: columns image (`datasets.Image(decode=False)`), id (with augment) and, perhaps, label.
        processor: an image processor of transformers, TimmWrapper's included.
        train: samples are for training.
        augment: augment the training samples.
        seed: with the epoch and the row's id it decides an augmentation.

    Raises:
        UserError: augmentation is asked for, but the processor has no fixed output size or does not normalize linearly.
    """
    augmentation = Augmentation(processor, seed) if train and augment else None
    return ImageSamples(split, processor, augmentation)


class ImageSamples(torch.utils.data.Dataset[Sample]):
    """See `image_samples`."""

    def __init__(self, split: Dataset, processor: Any, augmentation: Augmentation | None) -> None:
        self.split = split.with_format(None)
        self.processor = processor
        self.augmentation = augmentation
        # In shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentations of this epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """A batch at once: torch's loader asks for it, and both Arrow and processors are faster so."""
        rows = self.split[list(indices)]
        images = [decode_image(value) for value in rows["image"]]
        if self.augmentation is None:
            # On a list, processors group images by size: one image gives the same pixels alone and in company.
            pixels = list(self.processor(images, return_tensors="pt")["pixel_values"])
        else:
            epoch = int(self._epoch)
            pixels = [self.augmentation(image, epoch, row) for image, row in zip(images, rows["id"], strict=True)]
        samples: list[Sample] = [{"pixel_values": image} for image in pixels]
        if "label" in rows:
            for sample, label in zip(samples, rows["label"], strict=True):
                sample["labels"] = label_tensor(label)
        return samples


class Augmentation:
    """Random resized crop and horizontal flip (Szegedy et al. 2014, arXiv:1409.4842), then the
    processor's normalization.

    What happens to an image depends on (seed, epoch, id) and nothing else: not on workers, processes, or where a run
    was resumed.

    Args:
        processor: gives final size, interpolation, mean and standard deviation.
        seed: the recipe's seed.

    Raises:
        UserError: the processor has no fixed output size or does not normalize linearly.
    """

    def __init__(self, processor: Any, seed: int) -> None:
        self.seed = seed
        self.height, self.width = _final_size(processor)
        self.scale, self.offset = _normalization(processor, (self.height, self.width))
        self.resample = Image.Resampling(_resample(processor))

    def __call__(self, image: Image.Image, epoch: int, row: int) -> torch.Tensor:
        """One image, PIL RGB, as float32 (channels, height, width)."""
        rng = np.random.default_rng([self.seed, epoch, row])
        box = _random_box(image.width, image.height, rng)
        image = image.resize((self.width, self.height), self.resample, box=box)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if rng.random() < 0.5:
            pixels = pixels.flip(2)
        return torch.addcmul(self.offset, pixels.float(), self.scale)


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box (left, upper, right, lower) of random area and aspect in the image; the whole image after ten misses."""
    for _ in range(10):
        area = width * height * rng.uniform(_SMALLEST_CROP, 1.0)
        ratio = math.exp(rng.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, upper = rng.uniform(0, width - across), rng.uniform(0, height - down)
            return left, upper, left + across, upper + down
    return 0.0, 0.0, float(width), float(height)


def _final_size(processor: Any) -> tuple[int, int]:
    """Height and width of the processor's output, found by trying two images."""
    shapes = {tuple(_run(processor, Image.new("RGB", (side, side))).shape[1:]) for side in (64, 160)}
    if len(shapes) > 1:
        raise UserError(
            "The checkpoint's processor keeps the size of images, so that crops have no size to be resized to. "
            "Say data.augment=none."
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
            "The checkpoint's processor does not normalize pixels linearly, so that crops cannot be normalized alike. "
            "Say data.augment=none."
        )
    return scale.float().view(-1, 1, 1), black.float().view(-1, 1, 1)


def _run(processor: Any, image: Image.Image) -> torch.Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def _resample(processor: Any) -> int:
    """The processor's interpolation as PIL numbers it; bilinear where it does not say."""
    config = getattr(processor, "data_config", None)
    if config is not None:  # timm's words
        words = {"bilinear": 2, "bicubic": 3, "nearest": 0, "lanczos": 1, "box": 4, "hamming": 5}
        return words.get(config.get("interpolation", ""), 2)
    resample = getattr(processor, "resample", None)
    return 2 if resample is None else int(resample)


def label_tensor(label: int | float | Sequence[float]) -> torch.Tensor:
    """A class index as int64; one or more numbers as float32."""
    return torch.tensor(label, dtype=torch.int64 if isinstance(label, int) else torch.float32)


def collate_images(samples: Sequence[Sample]) -> Sample:
    """Stack samples into a batch: pixel_values (batch, channels, height, width), labels (batch,) or (batch, labels).

    Raises:
        UserError: the images differ in size.
    """
    shapes = {tuple(sample["pixel_values"].shape) for sample in samples}
    if len(shapes) > 1:
        raise UserError(
            f"The checkpoint's processor gives images of different sizes {sorted(shapes)}, which cannot be one batch. "
            "Use training.per_device_train_batch_size=1 or a checkpoint whose processor resizes or crops."
        )
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
