"""How training images are changed at random in a run, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_finetune.data.augment import BASIC
from hf_finetune.recipes.schema import ImageAugment, Recipe
from hf_finetune.recipes.staging import last_kind

if TYPE_CHECKING:
    import torch

    from hf_finetune.data import TaskData


def image_augment(recipe: Recipe, task: TaskData) -> ImageAugment | None:
    """How training images are changed at random: as named, basic, or not at all.

    By default they are where the backbone learns from natural images: one that is frozen, or all but its last blocks,
    has little to learn from more views; a flipped digit is another sign.
    """
    named = recipe.data.augment
    if isinstance(named, ImageAugment):
        return named
    if recipe.task != "image-classification" or recipe.model.in_channels not in (None, 3):
        return None  # the changes are for colour images
    by_default = task.natural_images and last_kind(recipe) not in ("head", "features", "freeze")
    return BASIC if named == "basic" or (named == "auto" and by_default) else None


def changed_on_device(recipe: Recipe, augment: ImageAugment | None, device: torch.device) -> bool:
    """Whether training images are changed in one pass a batch, on the device that trains.

    A GPU has the time, and its host has not. Where the CPU trains both ways cost the model's cores, and Pillow costs
    less.
    """
    if augment is None or recipe.data.augment_on != "auto":
        return augment is not None and recipe.data.augment_on == "device"
    return device.type == "cuda" and not augment.aug_mix


def key_of_changes(recipe: Recipe, task: TaskData, device: torch.device) -> str:
    """What the pixels of changed training images depend on, as text; empty where they are not changed."""
    augment = image_augment(recipe, task)
    if augment is None:
        return ""
    return augment.model_dump_json() + (" batched" if changed_on_device(recipe, augment, device) else "")
