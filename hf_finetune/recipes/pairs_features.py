"""`strategy=features`: what has no place where features are computed once and scikit-learn fits them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.data_section import ImageAugment, TextAugment

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_features(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault; those of `loss` and `average` are in `pairs_loss`."""
    if recipe.strategy.kind != "features":
        return
    yield from _samples(recipe)
    yield from _model(recipe)
    yield from _classifier(recipe)


def _samples(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.augment == "basic" or isinstance(data.augment, ImageAugment | TextAugment):
        yield "data.augment", "strategy=features reads every sample once, as it is: use none, or strategy=head"
    for name in ("mixup", "cutmix"):
        if getattr(data, name):
            yield f"data.{name}", "strategy=features fits unmixed samples: remove it, or use strategy=head"


def _model(recipe: Recipe) -> Iterator[tuple[str, str]]:
    model, layer = recipe.model, recipe.strategy.layer  # type: ignore[union-attr]
    if model.head.kind != "linear":
        yield "model.head", f"strategy=features fits the head itself: remove {model.head.kind}, or use strategy=head"
    if model.pooling == "attention":
        yield "model.pooling", "attention has to be learned, and strategy=features trains nothing: use mean, cls or max"
    if model.drop_blocks is not None and layer != "last":
        yield "strategy.layer", f"{layer} cuts the model after a block, and so does model.drop_blocks: keep one"


def _classifier(recipe: Recipe) -> Iterator[tuple[str, str]]:
    strategy = recipe.strategy
    if strategy.kind != "features":
        return
    if strategy.classifier == "logistic" and recipe.data.problem_type == "regression":
        yield "strategy.classifier", "logistic is for classes, and data.problem_type is regression: use ridge"
    if strategy.classifier == "knn" and any(value % 1 for value in strategy.regularization or ()):
        yield "strategy.regularization", "knn takes numbers of neighbours, such as [1, 5, 20]: give whole numbers"
