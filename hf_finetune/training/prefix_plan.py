"""Whether the frozen prefix runs once: what speaks against it, what it needs, and one line that says so."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from hf_finetune.data.image_samples import ImageSamples
from hf_finetune.data.streamed_samples import StreamedImages, StreamedTexts
from hf_finetune.data.text_samples import TextSamples
from hf_finetune.disk import size_in_words
from hf_finetune.prefix_store import home, total
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.precision import launcher_shards_the_model

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from hf_finetune.strategy import Applied
    from hf_finetune.strategy.prefix import FrozenPrefix
    from hf_finetune.training.setup import Samples
    from hf_finetune.training.trainer import FinetuneTrainer

_WORTH_IT = 0.25  # share of the blocks; below it, reading features costs about what it saves


def hindrance(recipe: Recipe, trainer: FinetuneTrainer, samples: Samples, changed: bool) -> str | None:
    """Why no prefix of this run can be kept, in words, or None.

    Args:
        recipe: what is asked for.
        trainer: of the run.
        samples: the real samples.
        changed: whether training images are changed at random.
    """
    if launcher_shards_the_model():
        return "the accelerate config shards the model"
    if trainer.args.world_size > 1 and os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        return "several machines do not share one file"
    if trainer.distillation is not None:
        return "a teacher answers with it"
    if trainer.mixing is not None:
        return "mixup and cutmix mix the images anew in every batch"
    if trainer.args.torch_compile:
        return "training.torch_compile is on"
    if any(getattr(trainer.args, name, False) for name in ("gradient_checkpointing", "activation_checkpointing")):
        return "activation checkpointing computes it again"
    if changed and recipe.cache.views is None:
        return "augmentation is on (cache.views=k keeps k fixed views of each image)"
    if (words := _unlike(samples)) is not None:
        return words
    if not _writable():
        return f"{home()} cannot be written"
    return None


def _unlike(samples: Samples) -> str | None:
    splits: tuple[Any, ...] = samples.splits
    for split in splits:
        if split is None:
            continue
        if isinstance(split, (StreamedImages, StreamedTexts)):
            return "the training rows are streamed"
        if type(split) not in (ImageSamples, TextSamples):
            return "samples of this kind hold more than inputs and labels"
        if isinstance(split, TextSamples) and split.augmentation is not None:
            return "texts are changed at random"
        if isinstance(split, TextSamples) and len(split.tokens.windows) != len(split.tokens.texts):
            return "long texts are read in windows"
        if len(split) < 3:
            return "a split has fewer than three rows"
    return None


def _writable() -> bool:
    place = home()
    while not os.path.lexists(place):
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def stage_in_words(applied: Applied, index: int) -> str:
    """Which stage, where there are several."""
    return "" if len(applied.stages) == 1 else f"stage {index + 1}: "


def passes_of(recipe: Recipe, applied: Applied, index: int, args: TrainingArguments, rows: int) -> float:
    """How often a stage goes over the training rows; what fits a head reads them again and again."""
    if recipe.strategy.kind == "features" or getattr(recipe.strategy, "solver", "adamw") == "lbfgs":
        return 2.0
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    total = args.max_steps * batch / rows if args.max_steps > 0 else float(args.num_train_epochs)
    epochs = [stage.epochs for stage in applied.stages]
    if getattr(recipe.strategy, "sweep", None) is not None:
        return 2.0 * total  # the sweep's own, and those of the run at the pair that it chooses
    if len(epochs) == 1:
        return total
    return total * float(epochs[index] or 0) / sum(float(each or 0) for each in epochs)


def runs_of(recipe: Recipe) -> int:
    """How many runs read the same training rows: with folds all of them do."""
    return 1 + (recipe.evaluation.cross_validation or (recipe.data.fold[1] if recipe.data.fold else 0))


def too_little(prefix: FrozenPrefix, passes: float, views: int) -> str | None:
    """Why keeping what a prefix computes would save too little, in words, or None."""
    if prefix.blocks < max(1, math.ceil(_WORTH_IT * prefix.of)):
        return f"only {prefix.blocks} of {prefix.of} blocks are frozen from the stem on"
    if passes <= views:
        times = "once" if views == 1 else f"{passes:g} times, and there are {views} views"
        return f"the training rows are read {times}" if views > 1 else "the training rows are read once"
    return None


def kept_in_words(
    prefix: FrozenPrefix, shape: tuple[int, ...], rows: int, size: int, views: int, found: int, wanted: int, needed: int
) -> str:
    """`features of 5,000 x 192 in 1.9 MB; 12 of 12 blocks run once; 3.8 MB in all in FOLDER`.

    Args:
        prefix: what is kept.
        shape: of a row.
        rows: of all splits.
        size: their bytes.
        views: of each training image.
        found: splits that are there.
        wanted: splits.
        needed: bytes of those that are not.
    """
    values: Any = " x ".join(f"{number:,}" for number in (rows, *shape))
    how = "once" if views == 1 else f"{views} times, once a view"
    origin = ""
    if found == wanted:
        origin = " (kept from an earlier run: they do not run at all)"
    elif found:
        origin = f" ({found} of {wanted} splits kept from an earlier run)"
    in_all = f"{size_in_words(total() + needed)} in all in {home()}"
    what = f"features of {values} in {size_in_words(size)}; {prefix.blocks} of {prefix.of} blocks"
    return f"{what} run {how}{origin}; {in_all}"
