"""mixup and CutMix: a training batch mixed with itself in another order, labels in the same shares.

mixup (Zhang et al. 2018, arXiv:1710.09412) averages two images, CutMix (Yun et al. 2019, arXiv:1905.04899) puts a
rectangle of one into the other. Both draw the share from Beta(alpha, alpha), once a batch as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from hf_finetune.errors import UserError
from hf_finetune.recipes.pairs_data import mixing_fault
from hf_finetune.recipes.schema import Data, ImageAugment, Section

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes.schema import Recipe


@dataclass
class Mixing:
    """Mixes batches of images; where both alphas are given, each batch takes one of the two by a coin.

    The share, the box and the order depend on (seed, step, which batch of the step) alone: a resumed run mixes as an
    uninterrupted one. Several processes draw the same numbers, each for its own part of the batch; so partners, which
    come from the same part, differ between one process and several.

    Args:
        mixup: alpha; 0 for none.
        cutmix: alpha; 0 for none.
        classes: number of classes of single-label targets; None where targets are mixed as they are (multi-label and
            regression).
        seed: the recipe's seed.
    """

    mixup: float
    cutmix: float
    classes: int | None
    seed: int
    _step: int = -1
    _batch: int = 0

    @classmethod
    def of(cls, recipe: Recipe, labels: LabelSpace) -> Mixing | None:
        """The mixing of a recipe, None for none.

        Raises:
            UserError: the labels have no mixture of the kind.
        """
        for name in ("mixup", "cutmix"):
            if getattr(recipe.data, name) and (message := mixing_fault(name, labels.problem_type)):
                raise UserError(f"data.{name}: {message}.")
        if not recipe.data.mixup and not recipe.data.cutmix:
            return None
        classes = labels.num_labels if labels.problem_type == "single_label_classification" else None
        return cls(recipe.data.mixup, recipe.data.cutmix, classes, recipe.seed)

    def __call__(self, inputs: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The batch mixed: pixel_values (N, C, H, W) as they were; labels of single classes become shares (N, classes).

        Args:
            inputs: pixel_values (N, C, H, W) and labels (N,) or (N, labels).
            step: updates done so far.
        """
        self._batch = self._batch + 1 if step == self._step else 0
        self._step = step
        rng = np.random.default_rng([self.seed, step, self._batch])
        pixels, labels = inputs["pixel_values"], inputs["labels"]
        if self.classes is not None:
            labels = functional.one_hot(labels.long(), self.classes)
        partner = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
        cut = self.cutmix and (not self.mixup or rng.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(rng.beta(alpha, alpha))
        if cut:
            pixels, share = with_box(pixels, pixels[partner], share, rng)
        else:
            pixels = mixture(pixels, pixels[partner], share)
        return {**inputs, "pixel_values": pixels, "labels": mixture(labels.float(), labels[partner].float(), share)}


def mixture(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """`share` of one and the rest of the other."""
    return share * one + (1 - share) * other


def with_box(
    pixels: torch.Tensor, others: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Images (N, C, H, W) with a box of others in them, and the share of the area that is left of them.

    The box has about 1 - share of the area and lies anywhere; what of it falls outside is cut off, so the share that is
    left is counted, not taken from `share`.
    """
    height, width = pixels.shape[-2:]
    side = math.sqrt(1 - share)
    down, across = round(height * side), round(width * side)
    row, column = int(rng.integers(height)), int(rng.integers(width))
    rows = slice(max(row - down // 2, 0), min(row - down // 2 + down, height))
    columns = slice(max(column - across // 2, 0), min(column - across // 2 + across, width))
    mixed = pixels.clone()
    mixed[..., rows, columns] = others[..., rows, columns]
    covered = max(rows.stop - rows.start, 0) * max(columns.stop - columns.start, 0)
    return mixed, 1 - covered / (height * width)


def changes_in_words(data: Data, images: ImageAugment | None) -> str:
    """What is changed at random in training, by name and strength, or `off`.

    Args:
        data: of the recipe.
        images: how images are changed, with `auto` resolved.
    """
    named = images if images is not None else data.augment
    changes = named.model_dump(exclude_defaults=True) if isinstance(named, Section) else {}
    changes |= {name: alpha for name in ("mixup", "cutmix") if (alpha := getattr(data, name))}
    return ", ".join(f"{name} {_strength(value)}".strip() for name, value in changes.items()) or "off"


def _strength(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{part:g}" for part in value)
    return "" if value is True else f"{value:g}"
