"""Memory that does not suffice: told with the settings that help in the run at hand."""

from __future__ import annotations

import gc
import traceback
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

_TOLD = ("can't allocate memory", "out of memory", "Cannot allocate memory")
_OF_WORKERS = ("is killed by signal: Killed", "out of shared memory", "is killed by signal: Bus error")
# Functions of ours and of the Trainer by which a traceback tells what was going on.
_TRAINING = "training_step"
_EVALUATION = ("prediction_step", "evaluation_loop", "predict_logits")


class OutOfMemory(UserError):
    """Memory did not suffice.

    Args:
        text: for the user.
        in_step: whether it was in a training step.
    """

    def __init__(self, text: str, in_step: bool = False) -> None:
        super().__init__(text)
        self.in_step = in_step


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether the memory of the device, of this process, or of a loader's worker did not suffice."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError | OSError) and any(words in str(fault) for words in (*_TOLD, *_OF_WORKERS))


def out_of_memory(fault: BaseException, recipe: Recipe, kept: str) -> OutOfMemory:
    """The fault in words.

    Args:
        fault: as `is_out_of_memory` knows it.
        recipe: of the run, for what it may set otherwise.
        kept: what the run can go on from, in words.
    """
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(fault.__traceback__)]
    in_step = _TRAINING in names
    evaluating = not in_step and any(name in _EVALUATION for name in names)
    on_gpu = isinstance(fault, torch.OutOfMemoryError) and torch.cuda.is_available()
    if any(words in str(fault) for words in _OF_WORKERS):
        when, helps = "in a loader's worker", _for_workers(recipe)
    elif evaluating:
        when, helps = "in evaluation", _for_evaluation(recipe)
    elif in_step:
        when, helps = "in a training step", _for_steps(recipe, on_gpu)
    else:
        when, helps = "outside of training steps", _for_loading(recipe)
    first = str(fault).strip().splitlines()
    told = first[0] if first else type(fault).__name__
    listed = "\n".join(f"  {setting:58}{effect}" for setting, effect in helps)
    where = "the GPU's memory" if on_gpu else "memory"
    return OutOfMemory(
        f"There is not enough {where}, {when}: {told}\nWhat helps, first things first:\n{listed}\n{kept}", in_step
    )


def forget(fault: BaseException) -> None:
    """Let go of what the frames of a fault hold, and of what lies unused on the device."""
    seen: BaseException | None = fault
    while seen is not None:
        behind = seen.__cause__ or seen.__context__
        seen.__traceback__ = seen.__cause__ = seen.__context__ = None
        seen = behind
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


Helps = list[tuple[str, str]]


def _for_steps(recipe: Recipe, on_gpu: bool) -> Helps:
    values: dict[str, Any] = recipe.training.values()
    batch, accumulated = _rows_at_once(recipe, "train"), values.get("gradient_accumulation_steps", 1)
    found: Helps = []
    if not values.get("auto_find_batch_size"):
        found.append(("training.auto_find_batch_size=true", "the same batch and steps, as few rows at once as fit"))
        if batch > 1:
            half = f"training.per_device_train_batch_size={batch // 2}"
            found.append((f"{half} training.gradient_accumulation_steps={2 * accumulated}", "the same by hand"))
    if recipe.strategy.kind not in ("head", "features"):
        if not (values.get("gradient_checkpointing") or values.get("activation_checkpointing")):
            found.append(("training.gradient_checkpointing=true", "activations are computed twice, not kept"))
        if recipe.strategy.kind in ("full", "scratch", "lp_ft", "gradual"):
            found.append(("strategy=lora", "or freeze, head: gradients and averages of fewer weights"))
    if on_gpu:
        found.append(("precision=bf16", "on the command line: half the size of activations"))
    return [*found, *_for_inputs(recipe)]


def _for_evaluation(recipe: Recipe) -> Helps:
    batch = _rows_at_once(recipe, "eval")
    half = [(f"training.per_device_eval_batch_size={max(1, batch // 2)}", f"now {batch} rows at once")]
    return [*half, ("data.max_eval_samples=N", "validate and test fewer rows"), *_for_inputs(recipe)]


def _rows_at_once(recipe: Recipe, role: str) -> int:
    from hf_finetune.training.arguments import defaults

    return int((defaults(recipe.task) | recipe.training.values())[f"per_device_{role}_batch_size"])


def _for_inputs(recipe: Recipe) -> Helps:
    if recipe.task == "text-classification":
        return [("data.max_length=N", "shorter texts"), ("model.checkpoint=...", "a smaller model")]
    return [("model.image_size=N", "smaller images"), ("model.checkpoint=...", "a smaller model")]


def _for_workers(recipe: Recipe) -> Helps:
    return [
        ("training.dataloader_num_workers=0", "or fewer: each holds batches of its own"),
        ("training.dataloader_prefetch_factor=1", "fewer batches ahead"),
    ]


def _for_loading(recipe: Recipe) -> Helps:
    return [
        ("data.max_train_samples=N", "fewer rows"),
        ("model.checkpoint=...", "a smaller model"),
        ("cache.prefix=off", "no features are kept"),
    ]
