"""What accelerate and DeepSpeed must be told of a model before they shard it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import TrainingArguments


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
