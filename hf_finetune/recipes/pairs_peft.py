"""What cannot go together among adapters: methods of peft, their options, the task, merging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.peft_options import OPTIONS, option_faults

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

# With transformers 5.23 and peft 0.21.2. peft's own classes load such adapters; but `from_pretrained`, and so
# `pipeline`, raises "`create_and_replace` does not support prompt learning" for the first, and
# "`inject_adapter_in_model` does not support PeftType.VERA" for the second.
_PROMPTS = ("prompt_tuning", "prefix_tuning")
_ONLY_MERGED = ("vera",)


def faults_of_peft(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The faults of a strategy with adapters."""
    strategy = recipe.strategy
    if strategy.kind not in ("lora", "peft"):
        return
    if recipe.model.batch_norm == "train":
        yield "model.batch_norm", "statistics stay as they are beside adapters, which do not save them: leave it out"
    if strategy.kind == "lora":
        return
    if strategy.method in _PROMPTS:
        yield "strategy.method", f"{_no_prompts(recipe)}; use {', '.join(OPTIONS)}, or strategy=lora"
        return
    if strategy.method in _ONLY_MERGED and not strategy.merge:
        reason = "transformers cannot load its adapters into a model, so pipeline() could not open the run"
        yield "strategy.merge", f"{strategy.method} needs strategy.merge=true: {reason}"
    for name, message in option_faults(strategy.method, strategy.options):
        yield f"strategy.options.{name}", message


def _no_prompts(recipe: Recipe) -> str:
    method = recipe.strategy.method  # type: ignore[union-attr]
    if recipe.task == "image-classification":
        return f"{method} adds learned tokens to a text, and the task is {recipe.task}"
    return (
        f"{method} is not offered: transformers 5.23 cannot load a model with learned prompts, so pipeline() could not "
        "open the run, and prompts cannot be merged into weights"
    )
