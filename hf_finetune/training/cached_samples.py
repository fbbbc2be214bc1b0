"""Samples whose frozen features are kept: the same length and order as the real ones, so the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_finetune.data.image_samples import ImageSamples, label_tensor
from hf_finetune.data.text_samples import TextSamples
from hf_finetune.evaluation.predict import take

ROWS = "cached_rows"  # a batch's key: numbers of the samples, (B,), those of view v after v times the split's rows
SPLIT = "cached_split"  # a batch's key: which split they are of


class Switch:
    """Whether batches hold rows or real samples, in shared memory, so that loader workers hear of it."""

    def __init__(self) -> None:
        self._on = torch.zeros((), dtype=torch.int64).share_memory_()

    def turn(self, on: bool) -> None:
        """From now on."""
        self._on.fill_(int(on))

    def __bool__(self) -> bool:
        return bool(self._on)


class Rows:
    """Samples that were asked for together, by their numbers."""

    def __init__(self, samples: CachedSamples, numbers: Sequence[int]) -> None:
        self.samples = samples
        self.numbers = numbers


class CachedSamples(Dataset[Any]):
    """Gives rows in place of samples while the switch is on.

    Args:
        real: the samples.
        split: a number of this split.
        switch: shared by all splits of a run.
        views: of each sample; epoch e takes view e modulo views.
    """

    def __init__(self, real: Any, split: int, switch: Switch, views: int = 1) -> None:
        self.real = real
        self.split_number = split
        self.switch = switch
        self.views = views
        self.labels = labels_of(real)
        self._view = torch.zeros((), dtype=torch.int64).share_memory_()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __getattr__(self, name: str) -> Any:
        if name == "real":
            raise AttributeError(name)  # not yet there: it is being unpickled
        return getattr(self.real, name)

    def __len__(self) -> int:
        return len(self.real)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self._view.fill_(epoch % self.views)
        self.real.set_epoch(epoch)
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Any:
        return self.real[index]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The batch: a list of samples, or Rows."""
        return Rows(self, indices) if self.switch else take(self.real, indices)

    def numbers_of(self, indices: Sequence[int]) -> torch.Tensor:
        """Rows of these samples in this epoch's view."""
        return torch.as_tensor(indices, dtype=torch.int64) + len(self) * int(self._view)


class CachedCollator:
    """Batches of rows: their numbers and labels, and of texts the tokens, which masks and positions come from.

    Args:
        collate: of the real samples.
    """

    tokens = True  # whether batches of texts hold their tokens

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> dict[str, Any]:
        """A batch."""
        if not isinstance(samples, Rows):
            return self.collate(samples)
        owner, numbers = samples.samples, samples.numbers
        batch: dict[str, Any] = {}
        if self.tokens and isinstance(owner.real, TextSamples):
            batch = self.collate(take(owner.real, numbers))
            batch.pop("labels", None)
        if owner.labels is not None:
            batch["labels"] = owner.labels[torch.as_tensor(numbers, dtype=torch.int64)]
        return {**batch, ROWS: owner.numbers_of(numbers), SPLIT: owner.split_number}


def real_batch(samples: CachedSamples, rows: torch.Tensor, collate: CachedCollator) -> dict[str, Any]:
    """The real samples of a batch of rows, in the view that the rows name."""
    samples.real.set_epoch(int(rows[0]) // len(samples))
    try:
        return collate.collate(take(samples.real, (rows % len(samples)).tolist()))
    finally:
        samples.real.set_epoch(int(samples._epoch))


def labels_of(real: Any) -> torch.Tensor | None:
    """Labels of all samples, (N,) or (N, C), as a batch would have them; None where there are none.

    Raises:
        TypeError: samples of a kind that may hold more than inputs and labels.
    """
    if type(real) is ImageSamples:
        found = real.split["label"][:] if "label" in real.split.column_names else None
    elif type(real) is TextSamples:
        found = real.labels
    else:
        raise TypeError(type(real).__name__)
    if found is None:
        return None
    if all(isinstance(label, int) for label in found):
        return torch.from_numpy(np.asarray(found, dtype=np.int64))
    return torch.stack([label_tensor(label) for label in found])
