"""Training samples that carry their teacher's answers, so that every loader, order and process has the right ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_finetune.evaluation.predict import take
from hf_finetune.training.distill import FEATURES, LOGITS
from hf_finetune.training.teacher import Answers

Sample = dict[str, Any]


class TaughtSamples(Dataset[Sample]):
    """Samples with `teacher_logits` (C,) and perhaps `teacher_features` (F,).

    Args:
        samples: as the student takes them.
        answers: the teacher's, in the order of the samples.
    """

    def __init__(self, samples: Any, answers: Answers) -> None:
        self.samples, self.answers = samples, answers

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self._taught(self.samples[index], index)

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """A batch at once, where the samples know how."""
        found = take(self.samples, indices)
        return [self._taught(sample, index) for sample, index in zip(found, indices, strict=True)]

    def set_epoch(self, epoch: int) -> None:
        """Choose the random changes of this epoch."""
        if hasattr(self.samples, "set_epoch"):
            self.samples.set_epoch(epoch)

    def _taught(self, sample: Sample, index: int) -> Sample:
        taught = {**sample, LOGITS: self.answers.logits[index]}
        if self.answers.features is not None:
            taught[FEATURES] = self.answers.features[index]
        return taught


class TaughtCollator:
    """A collator for samples with a teacher's answers, and for those without.

    Args:
        collate: of the student's samples.
    """

    def __init__(self, collate: Callable[[list[Any]], dict[str, torch.Tensor]]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        """The batch, with `teacher_logits` (N, C) and perhaps `teacher_features` (N, F)."""
        keys = [key for key in (LOGITS, FEATURES) if key in samples[0]]
        plain = [{name: value for name, value in sample.items() if name not in keys} for sample in samples]
        return self.collate(plain) | {key: torch.stack([sample[key] for sample in samples]) for key in keys}
