"""Who teaches, and what: settings that cannot go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.recipes.data_section import TextAugment
from hf_finetune.recipes.loss_section import Distill, Loss

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

Faults = Iterator[tuple[str, str]]


def faults_of_distill(recipe: Recipe) -> Faults:
    """Every pair of settings of `distill` and what it touches that makes no sense together."""
    settings = recipe.distill
    if settings is None:
        return
    if recipe.strategy.kind == "features":
        yield (
            "distill",
            "strategy=features is fitted to the labels by scikit-learn, no teacher is asked: remove distill",
        )
    if Path(settings.teacher) == Path(recipe.output_dir):
        yield (
            "distill.teacher",
            f"'{settings.teacher}' is output_dir, where the student will be: give another output_dir",
        )
    yield from _temperature(recipe, settings)
    yield from _features(recipe, settings)
    yield from _labels_unused(recipe, settings)
    yield from _changes(recipe)
    if recipe.loss.kind == "coral" and settings.on != "features":
        yield (
            "loss.kind",
            "coral gives other scores than a teacher's softmax: use cross_entropy, or distill.on=features",
        )


def _temperature(recipe: Recipe, settings: Distill) -> Faults:
    if settings.temperature == Distill.model_fields["temperature"].default:
        return
    if settings.on == "features":
        yield "distill.temperature", "softens the answers, and distill.on=features does not ask for them: remove it"
    elif recipe.data.problem_type == "regression":
        yield "distill.temperature", "softens classes, and data.problem_type is regression: remove it"


def _features(recipe: Recipe, settings: Distill) -> Faults:
    if settings.on == "logits":
        return
    if settings.on == "features" and settings.alpha == 1:
        yield "distill.alpha", "1 with distill.on=features leaves the output layer untrained: use less, or on=both"
    if recipe.strategy.kind == "head" and recipe.model.head.kind != "mlp":
        yield (
            "distill.on",
            f"{settings.on} teaches what the output layer receives, and with strategy=head nothing before it learns: "
            "use logits, or another strategy",
        )


def _labels_unused(recipe: Recipe, settings: Distill) -> Faults:
    if settings.alpha != 1:
        return
    loss, usual = recipe.loss, Loss()
    for name in ("kind", "class_weights", "logit_adjustment"):
        if getattr(loss, name) != getattr(usual, name):
            yield f"loss.{name}", "is about the labels, and distill.alpha=1 looks at the teacher alone: remove it"
    if recipe.training.values().get("label_smoothing_factor"):
        yield "training.label_smoothing_factor", "is about the labels, and distill.alpha=1 takes none: remove it"
    if loss.r_drop:
        yield "loss.r_drop", "is a part of the recipe's own loss, which distill.alpha=1 leaves out: remove it"


def _changes(recipe: Recipe) -> Faults:
    if isinstance(recipe.data.augment, TextAugment):
        yield (
            "data.augment",
            "hides tokens of the student, which a teacher with another tokenizer cannot be shown, and its answers to "
            "the whole text would teach what is not there (arXiv:2106.05237): use none with distill",
        )
    if recipe.model.in_channels not in (None, 3):
        for name in ("mixup", "cutmix"):
            if getattr(recipe.data, name):
                yield (
                    f"data.{name}",
                    f"shows the teacher mixed images, for which both must take RGB, and model.in_channels is "
                    f"{recipe.model.in_channels}: remove it",
                )
