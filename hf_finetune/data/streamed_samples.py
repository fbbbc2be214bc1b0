"""Samples of streamed rows, made as they are read: images decoded, texts tokenized, nothing kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from PIL import Image

from hf_finetune.data.augment import Augmentation
from hf_finetune.data.augment_text import TextAugmentation
from hf_finetune.data.bands import Pixels, decode_channels
from hf_finetune.data.batched_draws import BatchedAugmentation
from hf_finetune.data.checks import shape_fault, text_fault, why_undecodable
from hf_finetune.data.epoch import Epoch
from hf_finetune.data.image_samples import ImageSamples, Preprocessing, Sample, augmentation_of, label_tensor
from hf_finetune.data.streamed import Row, StreamedRows
from hf_finetune.data.text_samples import TextSamples, limit_of
from hf_finetune.data.tokens import tokenize
from hf_finetune.errors import DataError
from hf_finetune.recipes.schema import ImageAugment, TextAugment

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def streamed_samples(
    recipe: Recipe, split: StreamedRows, processor: Any, augment: ImageAugment | TextAugment | None, on_device: bool
) -> StreamedImages | StreamedTexts:
    """The training samples of a recipe, of rows that are streamed.

    Args:
        recipe: its task, seed, and what it says of texts.
        split: the rows.
        processor: the checkpoint's image processor or tokenizer.
        augment: how samples are changed.
        on_device: see `image_samples`.
    """
    data = recipe.data
    if recipe.task == "image-classification":
        changed = augment if isinstance(augment, ImageAugment) else None
        return StreamedImages(split, processor, augmentation_of(changed, processor, recipe.seed, on_device))
    changes = TextAugmentation(augment, processor, recipe.seed) if isinstance(augment, TextAugment) else None
    overlap = data.window_overlap if data.long_text == "windows" else None
    return StreamedTexts(split, processor, limit_of(processor, data.max_length), overlap, changes)


def streamed_or_none(
    recipe: Recipe, split: Any, processor: Any, augment: Any, on_device: bool = False
) -> torch.utils.data.Dataset[Any] | None:
    """`streamed_samples` of training rows that are streamed; None of others."""
    streamed = isinstance(split, StreamedRows)
    return streamed_samples(recipe, split, processor, augment, on_device) if streamed else None


class StreamedImages(ImageSamples):
    """`image_samples` of streamed rows.

    A row that cannot be used stops training, with its number and file; with data.on_error=skip it is left out of its
    batch.
    """

    split: StreamedRows  # type: ignore[assignment]

    def __init__(
        self, split: StreamedRows, processor: Any, augmentation: Augmentation | BatchedAugmentation | None
    ) -> None:
        self.split = split
        self.preprocessing = Preprocessing(processor)
        self.channels, self.augmentation = self.preprocessing.channels, augmentation
        self.store = None  # there may be more rows than any disk holds
        self._epoch = Epoch()

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """A batch at once, in the order of the numbers."""
        rows, images = [], []
        for row in self.split.read(indices):
            fault, image = row.fault, None
            try:
                image = decode_channels(row.values["image"], self.channels)
                fault = fault or (shape_fault(image) if isinstance(image, Image.Image) else None)
            except OSError as error:
                fault = f"the image cannot be decoded: {why_undecodable(row.values['image'], error)}"
            if usable(self.split, row, fault):
                rows.append(row)
                images.append(image)
        places = range(len(rows))
        if self.augmentation is None:
            samples = self._unchanged(places, images)
        else:
            samples = self._changed(self.augmentation, places, images, [row.id for row in rows])
        return with_labels(self.split, samples, rows)

    def _decoded(self, index: int, value: Any) -> Pixels:
        return value  # type: ignore[no-any-return]  # decoded before


class StreamedTexts(torch.utils.data.Dataset[dict[str, Any]]):
    """`text_samples` of streamed rows, tokenized a batch at a time; broken rows as in `StreamedImages`.

    Args:
        split: columns text and perhaps text_pair.
        tokenizer: a tokenizer of transformers.
        limit: tokens of a window at most.
        window_overlap: see `text_samples`.
        augmentation: how texts are changed.
    """

    def __init__(
        self,
        split: StreamedRows,
        tokenizer: Any,
        limit: int | None,
        window_overlap: float | None,
        augmentation: TextAugmentation | None,
    ) -> None:
        self.split, self.tokenizer, self.limit, self.window_overlap = split, tokenizer, limit, window_overlap
        self.augmentation = augmentation
        self._epoch = Epoch()

    def set_epoch(self, epoch: int) -> None:
        """Choose the changes of this epoch."""
        self._epoch.set(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """A batch at once, in the order of the numbers."""
        read = self.split.read(indices)
        rows = [row for row in read if usable(self.split, row, row.fault or text_fault(list(row.values.values())))]
        if not rows:
            return with_labels(self.split, [], [])
        texts = {role: [row.values[role] for row in rows] for role in rows[0].values}
        table = Dataset.from_dict({"id": [row.id for row in rows], **texts})
        tokens = tokenize(table, self.tokenizer, self.limit, self.window_overlap)
        made = TextSamples(tokens, None, self.augmentation, [row.id for row in rows])
        made.set_epoch(int(self._epoch))
        samples = [made[place] for place in range(len(rows))]
        return with_labels(self.split, samples, rows)


def usable(split: StreamedRows, row: Row, fault: str | None) -> bool:
    """Whether a row can be used.

    Raises:
        DataError: it cannot, and data.on_error is raise.
    """
    if fault is not None and split.on_error == "raise":
        raise DataError(
            f"{split.place_of(row.id)} (counted from 0) cannot be used: {fault}. Mend it, or leave such rows out of "
            "their batches with data.on_error=skip; the same command goes on from the last checkpoint."
        )
    return fault is None


def with_labels(split: StreamedRows, samples: list[Sample], rows: Sequence[Row]) -> list[Sample]:
    """Samples with their labels.

    Raises:
        DataError: there are none: every row of the batch was left out.
    """
    if not samples:
        raise DataError(f"No row of a batch of {split.name} can be used: look at the data, or use larger batches.")
    for sample, row in zip(samples, rows, strict=True):
        sample["labels"] = label_tensor(row.label)
    return samples
