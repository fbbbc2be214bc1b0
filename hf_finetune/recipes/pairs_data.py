"""Changes of the samples that do not go with the task, the loss or each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.data_section import Data, ImageAugment, TextAugment

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_data(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    yield from _augment(recipe)
    yield from _augment_on(recipe)
    yield from _mixing(recipe)
    yield from _windows(recipe)
    if recipe.task == "text-classification" and recipe.evaluation.tta != "none":
        yield "evaluation.tta", f"'{recipe.evaluation.tta}' views images, and the task is {recipe.task}: use none"


def _augment(recipe: Recipe) -> Iterator[tuple[str, str]]:
    augment = recipe.data.augment
    images = recipe.task == "image-classification"
    if images and isinstance(augment, TextAugment):
        yield (
            "data.augment",
            f"word_dropout, span_dropout and keep are for texts, and the task is {recipe.task}: {_named(ImageAugment)}",
        )
    if not images and isinstance(augment, ImageAugment):
        given = ", ".join(sorted(augment.model_fields_set)) or "{}"
        yield "data.augment", f"{given}: for images, and the task is {recipe.task}: {_named(TextAugment)}"
    if isinstance(augment, ImageAugment) and augment.crop and augment.crop[0] > augment.crop[1]:
        least, most = augment.crop
        yield "data.augment.crop", f"[{least:g}, {most:g}]: the smallest share comes first, as in [{most:g}, {least:g}]"


def _augment_on(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.augment_on == "auto":
        return
    if recipe.task == "text-classification":
        yield "data.augment_on", f"says where images are changed, and the task is {recipe.task}: remove it"
    elif data.augment == "none":
        yield "data.augment_on", "nothing changes images here (data.augment=none): remove it, or name changes"
    elif data.augment_on == "device" and isinstance(data.augment, ImageAugment) and data.augment.aug_mix:
        yield "data.augment_on", "aug_mix has no form for a whole batch: use samples, or remove aug_mix"


def _named(section: type[ImageAugment] | type[TextAugment]) -> str:
    return f"use {', '.join(section.model_fields)}; or none"


def _mixing(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for name in ("mixup", "cutmix"):
        if not getattr(recipe.data, name):
            continue
        if recipe.task == "text-classification":
            yield (
                f"data.{name}",
                f"mixes images, and the task is {recipe.task}: tokens have no average; use data.augment, such as "
                "{word_dropout: 0.1}",
            )
        elif recipe.data.problem_type is not None and (message := mixing_fault(name, recipe.data.problem_type)):
            yield f"data.{name}", message


def mixing_fault(name: str, problem_type: str) -> str | None:
    """Why `mixup` or `cutmix` does not go with labels of a problem type, or None."""
    if name == "cutmix" and problem_type == "regression":
        return (
            "cutmix mixes labels by the area of each image, and numbers are no share of an area: use data.mixup, which "
            "averages images and numbers alike"
        )
    return None


def _windows(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.long_text == "truncate":
        if data.window_overlap != Data.model_fields["window_overlap"].default:
            yield "data.window_overlap", "there are no windows to overlap: add data.long_text=windows"
        return
    if recipe.task == "image-classification":
        yield "data.long_text", f"windows are for texts, and the task is {recipe.task}: remove it"
    if data.text_pair is not None:
        yield "data.long_text", "windows cut one text, and data.text_pair makes pairs: use truncate"
    if recipe.training.values().get("train_sampling_strategy") == "group_by_length":
        yield "training.train_sampling_strategy", "texts read in windows are not grouped by length: use random"
