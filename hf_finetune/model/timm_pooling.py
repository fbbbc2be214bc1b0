"""`model.pooling` for timm: its own option where it has one, else our module in the place of its pooling layer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification, PretrainedConfig

from hf_finetune.errors import UserError
from hf_finetune.model.quiet import quiet

_TIMM_NAMES = {"mean": "avg", "max": "max", "cls": "token"}


def timm_class(config: PretrainedConfig, pooling: str, checkpoint: str) -> tuple[PretrainedConfig, Any]:
    """The configuration and the auto class for a timm checkpoint with another pooling.

    timm's own pooling (`global_pool`) is taken where it is the same method and needs no weights that the checkpoint
    lacks: the result is a plain timm model.

    Raises:
        UserError: the architecture has no class token, and `pooling` is cls.
    """
    net = _empty(config).timm_model
    if pools_so(net, pooling):
        return config, AutoModelForImageClassification
    native = _native(config, net, pooling)
    if native is not None:
        return native, AutoModelForImageClassification
    if pooling == "cls" and not getattr(net, "num_prefix_tokens", 0):
        raise UserError(
            f"model.pooling=cls: {checkpoint} ({config.architecture}) has no class token. "
            "Use mean, max, gem or attention."
        )
    if pool_layer(net) is not None and pooling != "cls":
        return config, AutoModelForImageClassification
    config = copy.deepcopy(config)
    config.do_pooling = False
    return config, AutoModel


def pool_layer(timm_model: nn.Module) -> str | None:
    """Name of the layer that pools, where it can be exchanged: timm's SelectAdaptivePool2d, or a ViT's `attn_pool`.

    None for architectures that pool in their forward pass.
    """
    for name, module in timm_model.named_modules():
        if type(module).__name__ == "SelectAdaptivePool2d":
            return name
    return "attn_pool" if hasattr(timm_model, "attn_pool") else None


def _native(config: PretrainedConfig, net: Any, pooling: str) -> PretrainedConfig | None:
    """The configuration with timm's own pooling of that kind; None where there is none, or it needs new weights."""
    if pooling not in _TIMM_NAMES:
        return None
    changed = copy.deepcopy(config)
    changed.model_args = {**(config.model_args or {}), "global_pool": _TIMM_NAMES[pooling]}
    if hasattr(net, "fc_norm") and hasattr(net, "attn_pool"):
        # A ViT that pools by the mean norms afterwards, one that takes the class token before: it stays where it is.
        changed.model_args["fc_norm"] = not isinstance(net.fc_norm, nn.Identity)
    try:
        other = _empty(changed).timm_model
    except (TypeError, ValueError, AssertionError, RuntimeError):
        return None
    shapes, other_shapes = _shapes(net), _shapes(other)
    fits = all(shapes.get(name) == shape for name, shape in other_shapes.items())
    return changed if fits and pools_so(other, pooling) else None


def pools_so(net: Any, pooling: str) -> bool:
    """Whether a timm model pools that way as it is."""
    name = pool_layer(net)
    if name and name != "attn_pool":
        kind = net.get_submodule(name).pool_type.removeprefix("fast") or "avg"
        return bool(kind == _TIMM_NAMES.get(pooling))
    if getattr(net, "attn_pool", None) is not None or getattr(net, "pool_include_prefix", False):
        return False
    return getattr(net, "global_pool", None) == _TIMM_NAMES.get(pooling, "none")


def _empty(config: PretrainedConfig) -> Any:
    from transformers import TimmWrapperForImageClassification  # imports timm

    with quiet(), torch.device("meta"):
        return TimmWrapperForImageClassification(copy.deepcopy(config))


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in net.named_parameters()}
