"""Whether an exported model says what the model says: on real samples, in figures, and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_finetune.data import TextCollator, collate_images, image_samples, normalized
from hf_finetune.evaluation.predict import longest_first, take
from hf_finetune.outputs import Rule, probabilities

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.data import LabelSpace
    from hf_finetune.evaluation.predictor import Predictor

LARGEST = 1e-3  # difference of a probability; of a number, as a share of the largest number
_BATCH = 16

Answers = Callable[[Mapping[str, torch.Tensor]], np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """Two models' answers to the same samples.

    Args:
        samples: how many.
        agreement: share with the same decision.
        difference: largest, of probabilities; of numbers as a share of the largest one.
    """

    samples: int
    agreement: float
    difference: float

    @property
    def good(self) -> bool:
        """Whether the two can be called the same model."""
        return self.agreement == 1.0 and self.difference <= LARGEST

    def in_words(self) -> str:
        """One line."""
        return (
            f"{self.samples:,} real samples: agreement {self.agreement:.2%}, "
            f"largest difference of a probability {self.difference:.1e}"
        )


class Batches:
    """Samples as the model takes them, the same for every model that is compared.

    The first batch is of one sample, the last of what is left: a graph that has kept the size of its example fails.

    Args:
        predictor: reads the samples.
        rows: columns image or text, perhaps text_pair.
    """

    def __init__(self, predictor: Predictor, rows: Dataset) -> None:
        rows = rows.remove_columns([name for name in rows.column_names if name == "label"])
        processor = predictor.loaded.processor
        image = predictor.task == "image-classification"
        self._samples: Any = image_samples(rows, processor) if image else predictor.texts(rows)
        self._collate: Any = collate_images if image else TextCollator(processor)
        self._order = longest_first(self._samples)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Numbers of the samples (N,), and their batch."""
        starts = [0, *range(1, len(self._order), _BATCH), len(self._order)]
        for start, stop in pairwise(starts):
            if stop > start:
                yield self._order[start:stop], self._batch(self._order[start:stop])

    def example(self) -> dict[str, torch.Tensor]:
        """Two samples, the first twice where there is no other: torch takes a dimension of 1 for a fixed one."""
        return self._batch(self._order[[0, -1]])

    def logits(self, answers: Answers) -> np.ndarray:
        """A model's logits (N, C), in the order of the rows."""
        found: np.ndarray | None = None
        for rows, batch in self:
            some = answers(batch)
            found = np.empty((len(self), some.shape[1]), np.float32) if found is None else found
            found[rows] = some
        assert found is not None
        return found

    def _batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        return normalized(self._collate(take(self._samples, rows)))


def compare(expected: np.ndarray, found: np.ndarray, labels: LabelSpace, rule: Rule | None = None) -> Comparison:
    """Decisions and probabilities of two models' logits (N, C), as the model's rule makes them of logits.

    Numbers agree where they differ by less than `LARGEST` of the largest one; of several tasks all have to agree.
    """
    rule = rule or Rule()
    expected, found = rule.tempered(expected), rule.tempered(found)
    same, difference = np.ones(len(expected), dtype=bool), 0.0
    parts = [(part.space, part.outputs) for part in labels.tasks] or [(labels, slice(None))]
    for space, at in parts:
        one, other = np.ascontiguousarray(expected[:, at]), np.ascontiguousarray(found[:, at])
        gaps = np.abs(probabilities(one, space.problem_type) - probabilities(other, space.problem_type))
        if space.problem_type == "regression":
            gaps = gaps / max(1.0, float(np.abs(one).max()))
            same &= (gaps <= LARGEST).all(axis=1)
        else:
            decided = rule.decided(one, space.problem_type) == rule.decided(other, space.problem_type)
            same &= decided if decided.ndim == 1 else decided.all(axis=1)
        largest = float(gaps.max())
        difference = max(difference, largest if np.isfinite(largest) else float("inf"))
    return Comparison(len(expected), float(same.mean()), difference)
