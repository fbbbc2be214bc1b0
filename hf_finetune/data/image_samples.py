"""Images as the model takes them: the checkpoint's own processor, after random changes where they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

from hf_finetune.data.augment import Augmentation
from hf_finetune.data.bands import channels_of, check_channels, decode_channels, pixels_of
from hf_finetune.data.epoch import Epoch
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import ImageAugment

Sample = dict[str, torch.Tensor]


def image_samples(
    split: Dataset, processor: Any, *, augment: ImageAugment | None = None, seed: int = 0
) -> ImageSamples:
    """A torch data set of {"pixel_values": float32 (channels, height, width), "labels"} in the order of the split.

    Pixels are exactly `processor(image)`; with `augment` they are changed at random, at the processor's final size, and
    normalized as the processor does. A split without a label column gives no "labels".

    Args:
        split: columns image (`datasets.Image(decode=False)`), id (with augment) and, perhaps, label.
        processor: an image processor of transformers, TimmWrapper's included.
        augment: how training samples are changed.
        seed: with the epoch and the row's id it decides a change.

    Raises:
        UserError: augmentation is asked for, but the processor has no fixed output size or does not normalize linearly;
            or the images have another number of channels than the processor.
    """
    return ImageSamples(split, processor, None if augment is None else Augmentation(augment, processor, seed))


class ImageSamples(torch.utils.data.Dataset[Sample]):
    """See `image_samples`."""

    def __init__(self, split: Dataset, processor: Any, augmentation: Augmentation | None) -> None:
        self.split = split.with_format(None)
        self.processor = processor
        self.channels = channels_of(processor)
        check_channels(self.split, self.channels)
        self.augmentation = augmentation
        self._epoch = Epoch()

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentations of this epoch."""
        self._epoch.set(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """A batch at once: torch's loader asks for it, and both Arrow and processors are faster so."""
        rows = self.split[list(indices)]
        images = [decode_channels(value, self.channels) for value in rows["image"]]
        if self.augmentation is None:
            pixels = pixels_of(self.processor, images)
        else:
            pixels = self.augmentation(images, int(self._epoch), rows["id"])  # type: ignore[arg-type]
        samples: list[Sample] = [{"pixel_values": image} for image in pixels]
        if "label" in rows:
            for sample, label in zip(samples, rows["label"], strict=True):
                sample["labels"] = label_tensor(label)
        return samples


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
