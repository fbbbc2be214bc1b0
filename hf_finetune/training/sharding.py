"""What accelerate and DeepSpeed must be told of a model before they shard it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_finetune.errors import UserError
from hf_finetune.strategy.frozen import batch_norms
from hf_finetune.training.precision import Precision, launched_by_deepspeed


@contextmanager
def loaded_whole(arguments: TrainingArguments) -> Iterator[None]:
    """Inside, transformers loads whole models: under ZeRO-3 it would shard them, and DeepSpeed does that later too.

    Heads, adapters, surgery and the counting of parameters need whole tensors.
    """
    from transformers.integrations import deepspeed

    plugin = arguments.deepspeed_plugin
    if plugin is None:
        yield
        return
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(plugin.dschf)


def refuse_batch_norm(model: nn.Module, precision: Precision) -> None:
    """Stop where DeepSpeed would hold weights in 16 bits and the statistics of a BatchNorm in 32.

    Raises:
        UserError: it would; torch refuses that in the first step.
    """
    if not launched_by_deepspeed() or precision == "no":
        return
    if names := batch_norms(model):
        raise UserError(
            f"DeepSpeed holds weights in {precision}, and {names[0]} is a BatchNorm, whose statistics are in fp32: "
            "torch does not take both. Give precision=no and accelerate launch --mixed_precision no, or use "
            "accelerate_configs/multi_gpu.yaml."
        )


def shard_embeddings_once(model: Any) -> None:
    """Leave the modules that the input embeddings lie in to the rest of the model.

    accelerate 1.15 shards every module of a kind that the model names in `_no_split_modules`, and then the input
    embeddings again: ViT, DINOv2, BERT and others name the module around them, and torch refuses to shard twice.

    Args:
        model: of transformers, or an adapter around one; its list of kinds becomes shorter.
    """
    try:
        embeddings = model.get_input_embeddings()
    except NotImplementedError:  # a ResNet has none, and accelerate asks all the same
        embeddings, model.get_input_embeddings = None, _none
    around = {type(module).__name__ for module in model.modules() if _holds(module, embeddings)}
    present = {type(module).__name__ for module in model.modules()}  # accelerate stops at a kind that is not there
    model._no_split_modules = sorted((set(model._no_split_modules or ()) & present) - around)


def _holds(module: nn.Module, inner: Any) -> bool:
    return module is not inner and any(part is inner for part in module.modules())


def _none() -> None:
    return None
