"""Images as the model takes them, but for the last step: the checkpoint's own processor, or random changes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from hf_finetune.data.augment import Augmentation
from hf_finetune.data.bands import Pixels, channels_of, check_channels, decode_channels, pixels_of
from hf_finetune.data.batched_changes import CHANGES, Changes
from hf_finetune.data.batched_draws import BatchedAugmentation
from hf_finetune.data.epoch import Epoch
from hf_finetune.data.levels import NORMALIZATION, Levels
from hf_finetune.data.pixel_store import PixelStore
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import ImageAugment

Sample = dict[str, Any]


def image_samples(
    split: Dataset,
    processor: Any,
    *,
    augment: ImageAugment | None = None,
    seed: int = 0,
    on_device: bool = False,
) -> ImageSamples:
    """A torch data set of {"pixel_values", "normalization", "labels"} in the order of the split.

    `normalized(collate_images(samples))` is exactly `processor(image)`; with `augment` they are changed at random, at
    the processor's final size, and normalized as the processor does. Until then pixels are levels, uint8 (channels,
    height, width); where the processor makes none, or noise is drawn into them, they are float32 and "normalization" is
    absent. A split without a label column gives no "labels".

    Args:
        split: columns image (`datasets.Image(decode=False)`), id (with augment) and, perhaps, label.
        processor: an image processor of transformers, TimmWrapper's included.
        augment: how training samples are changed.
        seed: with the epoch and the row's id it decides a change.
        on_device: whether the samples are changed by `normalized`, a batch in one pass; they bring what was drawn for
            them. Not with `aug_mix`.

    Raises:
        UserError: augmentation is asked for, but the processor has other than 3 channels, no fixed output size or does
            not normalize linearly; or the images have another number of channels than the processor.
    """
    return ImageSamples(split, processor, augmentation_of(augment, processor, seed, on_device))


def augmentation_of(
    augment: ImageAugment | None, processor: Any, seed: int, on_device: bool
) -> Augmentation | BatchedAugmentation | None:
    """What changes the samples; arguments and errors as of `image_samples`."""
    if augment is None:
        return None
    if (channels := channels_of(processor)) != 3:
        raise UserError(
            f"data.augment changes images of 3 channels, and the checkpoint's processor takes {channels}: "
            "say data.augment=none."
        )
    way = BatchedAugmentation if on_device else Augmentation
    return way(augment, processor, seed)


class ImageSamples(torch.utils.data.Dataset[Sample]):
    """See `image_samples`."""

    def __init__(self, split: Dataset, processor: Any, augmentation: Augmentation | BatchedAugmentation | None) -> None:
        self.split = split.with_format(None)
        self.preprocessing = Preprocessing(processor)
        self.channels = self.preprocessing.channels
        check_channels(self.split, self.channels)
        self.augmentation = augmentation
        self.store = PixelStore(len(split)) if augmentation is not None or self.preprocessing.levels else None
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
        if self.augmentation is None:
            samples = self._unchanged(indices, rows["image"])
        else:
            samples = self._changed(self.augmentation, indices, rows["image"], rows["id"])
        if "label" in rows:
            for sample, label in zip(samples, rows["label"], strict=True):
                sample["labels"] = label_tensor(label)
        return samples

    def _changed(
        self,
        augmentation: Augmentation | BatchedAugmentation,
        indices: Sequence[int],
        values: Sequence[Any],
        ids: Sequence[int],
    ) -> list[Sample]:
        """Images changed at random, or with what was drawn for them."""
        epoch = int(self._epoch)
        if isinstance(augmentation, BatchedAugmentation) and augmentation.of_levels:
            placed = zip(self._unchanged(indices, values), ids, strict=True)
            return [{**sample, CHANGES: augmentation.changes(epoch, row)} for sample, row in placed]
        images = [self._decoded(index, value) for index, value in zip(indices, values, strict=True)]
        if isinstance(augmentation, BatchedAugmentation):
            return augmentation.of_decoded([np.asarray(image) for image in images], epoch, ids)
        shown = [Image.fromarray(image) if isinstance(image, np.ndarray) else image for image in images]
        return augmentation(shown, epoch, ids)

    def _decoded(self, index: int, value: Any) -> Pixels:
        """An image to be changed: uint8 (height, width, 3) as it was kept, or new."""
        assert self.store is not None
        if (kept := self.store.get(index)) is not None:
            return kept
        image = decode_channels(value, self.channels)
        self.store.put(index, np.asarray(image))
        return image

    def _unchanged(self, indices: Sequence[int], values: Sequence[Any]) -> list[Sample]:
        """Images as the processor makes them; kept as levels."""
        kept = [None if self.store is None else self.store.get(index) for index in indices]
        missing = [place for place, levels in enumerate(kept) if levels is None]
        images = [decode_channels(values[place], self.channels) for place in missing]
        made = dict(zip(missing, self.preprocessing(images), strict=True))
        if self.store is not None:
            for place, sample in made.items():
                self.store.put(int(indices[place]), sample["pixel_values"].numpy())
        return [
            made[place] if levels is None else self.preprocessing.sample(torch.from_numpy(levels))
            for place, levels in enumerate(kept)
        ]


class Preprocessing:
    """A processor that makes images into samples {"pixel_values", "normalization"}; see `image_samples`.

    Args:
        processor: an image processor of transformers, TimmWrapper's included.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.channels = channels_of(processor)
        self.levels = Levels.of(processor) if self.channels == 3 else None

    def __call__(self, images: Sequence[Pixels]) -> list[Sample]:
        """Images as `decode_channels` gives them."""
        if not images:
            return []
        if self.levels is None:
            return [{"pixel_values": pixels} for pixels in pixels_of(self.processor, images)]
        return [self.sample(levels) for levels in self.levels(images)]  # type: ignore[arg-type]

    def sample(self, levels: torch.Tensor) -> Sample:
        """Levels (3, height, width) that were made before."""
        assert self.levels is not None
        return {"pixel_values": levels, NORMALIZATION: self.levels.normalization}


def label_tensor(label: int | float | Sequence[float]) -> torch.Tensor:
    """A class index as int64; one or more numbers as float32."""
    return torch.tensor(label, dtype=torch.int64 if isinstance(label, int) else torch.float32)


def collate_images(samples: Sequence[Sample]) -> Sample:
    """Stack samples into a batch: pixel_values (batch, channels, height, width), labels (batch,) or (batch, labels).

    What becomes of levels, on the device, says `levels.normalized`.

    Raises:
        UserError: the images differ in size.
    """
    if CHANGES in samples[0]:
        return _with_changes(samples)
    shapes = {tuple(sample["pixel_values"].shape) for sample in samples}
    if len(shapes) > 1:
        raise UserError(
            f"The checkpoint's processor gives images of different sizes {sorted(shapes)}, which cannot be one batch. "
            "Use training.per_device_train_batch_size=1 or a checkpoint whose processor resizes or crops."
        )
    return {
        name: value if name == NORMALIZATION else _stacked([sample[name] for sample in samples])
        for name, value in samples[0].items()
    }


def _with_changes(samples: Sequence[Sample]) -> Sample:
    """Samples that are changed on the device: images of several sizes share a batch, each in the upper left corner."""
    plain = [{name: value for name, value in sample.items() if name != CHANGES} for sample in samples]
    largest = [max(sample["pixel_values"].shape[side] for sample in samples) for side in (1, 2)]
    for sample in plain:
        pixels = sample["pixel_values"]
        if list(pixels.shape[1:]) != largest:
            sample["pixel_values"] = pixels.new_zeros(*largest, 3).permute(2, 0, 1)
            sample["pixel_values"][:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return {**collate_images(plain), CHANGES: Changes.of([sample[CHANGES] for sample in samples])}


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    if parts[0].dtype != torch.uint8 or parts[0].is_contiguous():
        return torch.stack(parts)
    # New levels lie with their colours side by side: copied as they lie, which is ten times as fast.
    return torch.stack([levels.permute(1, 2, 0) for levels in parts]).permute(0, 3, 1, 2)
