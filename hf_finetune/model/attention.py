"""Attention on the CPU as two matrix products and a softmax, where that is faster than torch's fused kernel.

The fused kernel is made for long sequences: it never holds the table of all pairs. At the 16 to 512 tokens of a
sentence or an image that table is small, and on a processor without AMX the kernel takes two to twenty times as long
for a step (docs/speed.md). It is measured once; larger tables go to the fused kernel, so that memory stays bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

Attention = Literal["pairs", "fused"]

_NAME = "hf_finetune_pairs"
_PAIRS = 1 << 24  # of a layer and a batch; more go to the fused kernel
_KEYS = 512  # in fp32 the fused kernel is as fast from here on
_GAIN = 1.25
_ELSEWHERE = ("position_bias", "softcap", "cache", "head_mask", "s_aux")  # what the fused kernel's caller handles


@contextmanager
def fast_attention(model: nn.Module, begun: str | None = None) -> Iterator[None]:
    """Until the end of the block the model attends in the faster way; answers differ by rounding alone.

    Args:
        model: of transformers (whose fused attention goes through its interface) or timm; any other is left alone.
        begun: what a run was begun with, "pairs" or "fused": it has to go on alike.
    """
    if not _on_cpu() or not (begun == "pairs" or (begun is None and _pairs_are_faster())):
        yield
        return
    wholes, blocks = _of_transformers(model), _of_timm(model)
    before = [(config, config._attn_implementation) for config in _configs(model)]
    for whole in wholes:
        whole.set_attn_implementation(_NAME)  # and every model inside, also those that do not attend
    for block in blocks:
        block.fused_attn = False
    try:
        yield
    finally:
        for config, own in before:
            config._attn_implementation_internal = own
        for block in blocks:
            block.fused_attn = True


def _configs(model: nn.Module) -> list[Any]:
    """The configurations of a model, of the models inside, and of their parts."""
    found: dict[int, Any] = {}
    open_ones = [module.config for module in model.modules() if hasattr(getattr(module, "config", None), "sub_configs")]
    while open_ones:
        config = open_ones.pop()
        if id(config) not in found:
            found[id(config)] = config
            parts = (getattr(config, name, None) for name in config.sub_configs)
            open_ones += [part for part in parts if part is not None]
    return list(found.values())


def attention_in_use(model: nn.Module) -> Attention:
    """How a model attends now, where it has a choice."""
    for module in model.modules():
        if getattr(getattr(module, "config", None), "_attn_implementation", None) == _NAME:
            return "pairs"
    return "fused"


def _of_transformers(model: nn.Module) -> list[Any]:
    """Models that use the fused kernel, outer ones first."""
    from transformers import AttentionInterface, PreTrainedModel
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_NAME, pairs_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    found = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    return [
        module
        for module in found
        if getattr(module.config, "_attn_implementation", None) == "sdpa"
        and module._supports_sdpa
        and module._can_set_attn_implementation()
    ]


def _of_timm(model: nn.Module) -> list[Any]:
    """Blocks that use the fused kernel; of images in many patches none, since timm keeps the table of all pairs."""
    patches = max((getattr(module, "num_patches", 0) for module in model.modules()), default=0)
    if not 0 < patches <= _KEYS:
        return []
    return [module for module in model.modules() if getattr(module, "fused_attn", False) is True]


def pairs_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers' interface.

    Args:
        module: the layer.
        query: (B, heads, queries, D).
        key: (B, heads, keys, D).
        value: (B, heads, keys, D).
        attention_mask: (B or 1, heads or 1, queries, keys), true where a query may look, or what to add to the scores.
        dropout: share of the weights set to 0.
        scaling: of the scores; 1 / sqrt(D) if None.
        is_causal: as the fused kernel takes it.
        rest: what only some architectures use.

    Returns:
        (B, queries, heads, D).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    pairs = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if (
        pairs > _PAIRS
        or (query.dtype == torch.float32 and key.shape[2] > _KEYS)
        or query.shape[1] != key.shape[1]
        or (attention_mask is None and causal and query.shape[2] > 1)
        or any(rest.get(name) is not None for name in _ELSEWHERE)
    ):
        given = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **given, **rest
        )
        return found
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):  # softmax sums in fp32 whatever it is given
        return _attend(query, key, value, attention_mask, dropout, scale).transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scale: float,
) -> torch.Tensor:
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask.to(scores.dtype)
    weights = scores.softmax(-1)
    return torch.matmul(functional.dropout(weights, dropout) if dropout else weights, value)


def _on_cpu() -> bool:
    return not torch.cuda.is_available() and not torch.backends.mps.is_available()


@cache
def _pairs_are_faster() -> bool:
    """Whether a small attention, forward and backward, gains clearly."""
    query, key, value = (torch.ones(8, 3, 128, 64, requires_grad=True) for _ in range(3))
    ways = {
        "fused": lambda: functional.scaled_dot_product_attention(query, key, value),
        "pairs": lambda: _attend(query, key, value, None, 0.0, 0.125),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(4):
        for name, way in ways.items():
            began = time.process_time()  # others use the machine too
            with torch.enable_grad():
                torch.autograd.grad(way().sum(), (query, key, value))
            seconds[name] = min(seconds[name], time.process_time() - began)
    return seconds["fused"] > _GAIN * seconds["pairs"]
