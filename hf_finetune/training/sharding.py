"""Models that FSDP2 or DeepSpeed shards: what they must be told before, what cannot be, whole weights at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from hf_finetune.console import is_main_process
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Recipe
from hf_finetune.strategy.frozen import batch_norms
from hf_finetune.training.precision import Precision, launched_by_deepspeed, launcher_shards_the_model


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


def gather_weights(model: nn.Module) -> None:
    """Give a model that was sharded its whole weights on the first process, to be saved; it cannot be run any more.

    All processes call it: each weight is put together by all of them, one after the other.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):  # else it would be saved under the name of FSDP's own class
            own: Any = next(kind for kind in type(module).__mro__ if not issubclass(kind, FSDPModule))
            module.__class__ = own
    found: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter not in found:
                found[parameter] = nn.Parameter(_whole(parameter), parameter.requires_grad)
            if is_main_process():
                module._parameters[name] = found[parameter]


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    """On the CPU; on the other processes nothing is kept."""
    if hasattr(parameter, "ds_id"):  # ZeRO-3
        from deepspeed.runtime.zero import GatheredParameters  # type: ignore[import-not-found]

        with GatheredParameters([parameter]):
            return _kept(parameter.detach())
    found = parameter.detach()
    return _kept(found.full_tensor() if isinstance(found, DTensor) else found)


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu().clone() if is_main_process() else tensor.new_empty(0)


def refuse_sharding(recipe: Recipe) -> None:
    """Stop where FSDP or DeepSpeed shards weights that something of the recipe reads whole.

    Raises:
        UserError: it does.
    """
    reads = {
        "average.ema": recipe.average.ema,
        "average.soup": recipe.average.soup,
        "loss.l2_sp": recipe.loss.l2_sp,
        "distill": recipe.distill,
    }
    found = [name for name, value in reads.items() if value]
    if found and launcher_shards_the_model():
        raise UserError(
            f"{', '.join(found)}: reads whole weights at every step or checkpoint, and the accelerate config (FSDP, "
            "DeepSpeed) shards them. Remove it, or use accelerate_configs/multi_gpu.yaml."
        )


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
