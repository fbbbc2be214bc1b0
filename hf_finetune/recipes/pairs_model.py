"""What cannot go together among changes of the checkpoint: with the task, the strategy, the data, each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.data_section import ImageAugment

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

_RGB = 3


def faults_of_model(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    yield from _task(recipe)
    yield from _alone(recipe)
    yield from _random_blocks(recipe)
    yield from _statistics(recipe)
    yield from _channels(recipe)
    yield from _heads(recipe)


def _task(recipe: Recipe) -> Iterator[tuple[str, str]]:
    model, data = recipe.model, recipe.data
    if recipe.task == "text-classification":
        for name in ("in_channels", "image_size"):
            if getattr(model, name) is not None:
                yield f"model.{name}", f"is for images, and the task is {recipe.task}: remove it"
    elif model.max_length is not None:
        yield (
            "model.max_length",
            f"is for text, and the task is {recipe.task}: remove it; model.image_size is for images",
        )
    if model.max_length is not None and data.max_length is not None and data.max_length > model.max_length:
        yield (
            "data.max_length",
            f"{data.max_length} tokens are kept of a text, and the model takes {model.max_length} by model.max_length: "
            "give at most as many",
        )


def _alone(recipe: Recipe) -> Iterator[tuple[str, str]]:
    model = recipe.model
    if model.stem_weights != "repeat" and model.in_channels is None:
        yield "model.stem_weights", "is about the filters for other channels: add model.in_channels, or remove it"
    if isinstance(model.drop_blocks, tuple) and len(set(model.drop_blocks)) < len(model.drop_blocks):
        yield "model.drop_blocks", f"names a block twice: {list(model.drop_blocks)}"


def _random_blocks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    count, strategy = recipe.model.reinit_blocks, recipe.strategy
    if count is None:
        return
    if strategy.kind == "scratch":
        yield "model.reinit_blocks", "does nothing with strategy=scratch, where every block is random: remove it"
    stages = [stage.strategy for stage in strategy.stages] if strategy.kind == "stages" else [strategy]
    if any(stage.kind in ("full", "scratch", "lp_ft", "gradual", "auto") for stage in stages):
        return
    learning = max((stage.train_blocks for stage in stages if stage.kind == "freeze"), default=0)
    if learning < count:
        what = f"strategy={strategy.kind}" + (f" with {learning} learning blocks" if learning else "")
        yield (
            "model.reinit_blocks",
            f"{count} blocks would get random weights and keep them, for {what} does not train them: use "
            f"strategy=full, or strategy=freeze with strategy.train_blocks={count} or more",
        )


def _statistics(recipe: Recipe) -> Iterator[tuple[str, str]]:
    model, kind = recipe.model, recipe.strategy.kind
    if model.batch_norm == "frozen" and kind == "scratch":
        yield "model.batch_norm", "frozen keeps the checkpoint's statistics, and strategy=scratch has none: use train"
    if model.batch_norm == "train" and kind in ("lora", "peft"):
        yield (
            "model.batch_norm",
            f"strategy={kind} saves adapters, which do not hold statistics that have moved: use frozen, or remove it",
        )
    if model.batch_norm_momentum is None:
        return
    if model.batch_norm == "frozen":
        yield "model.batch_norm_momentum", "statistics that are frozen do not move: remove it, or model.batch_norm"
    elif kind in ("head", "features", "lora", "peft") or (kind in ("norms", "bitfit") and model.batch_norm is None):
        yield "model.batch_norm_momentum", f"statistics do not move with strategy={kind}: remove it"


def _channels(recipe: Recipe) -> Iterator[tuple[str, str]]:
    channels, augment = recipe.model.in_channels, recipe.data.augment
    if channels in (None, _RGB) or recipe.task != "image-classification":
        return
    if augment == "basic" or isinstance(augment, ImageAugment):
        yield "data.augment", f"is for images of 3 channels, and model.in_channels is {channels}: use none"
    if recipe.data.clean is not None and recipe.data.clean.near_duplicates is not None and channels not in (1, 4):
        yield "data.clean.near_duplicates", f"compares images, not arrays of {channels} channels: remove it"
    if recipe.evaluation.tta != "none":
        yield "evaluation.tta", f"is for images of 3 channels, and model.in_channels is {channels}: use none"


def _heads(recipe: Recipe) -> Iterator[tuple[str, str]]:
    head, values = recipe.model.head, recipe.training.values()
    if head.kind == "cosine" and recipe.data.problem_type == "regression":
        yield "model.head", "a cosine is bounded, and the targets of a regression are not: use linear or mlp"
    if head.kind == "cosine" and recipe.loss.kind == "coral":
        yield "model.head", "cosine has no biases, which are the thresholds of loss.kind=coral: use linear or mlp"
    if head.kind == "mlp" and head.norm == "batch" and values.get("per_device_train_batch_size") == 1:
        yield (
            "model.head.norm",
            "batch needs more than one sample in a batch, and training.per_device_train_batch_size is 1: use layer",
        )
