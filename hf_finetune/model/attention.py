"""Attention on the CPU as two matrix products and a softmax, where that is faster than torch's fused kernel.

The fused kernel is made for long sequences: it never holds the table of all pairs. At the 16 to 512 tokens of a
sentence or an image that table is small. On a processor without AMX the kernel takes two to five times as long for a
step in bf16, and in fp32 it loses more where oneDNN computes its many small products (`evaluation/products.py`; with
MKL it is the faster one in fp32). So both number formats are measured, under the products in use; larger tables go to
the fused kernel, so that memory stays bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

Attention = Literal["pairs", "pairs in bf16", "pairs in fp32", "fused"]

_NAMES: dict[str, Attention] = {  # in transformers' interface
    "hf_finetune_pairs": "pairs",
    "hf_finetune_pairs_bf16": "pairs in bf16",
    "hf_finetune_pairs_fp32": "pairs in fp32",
}
_SETTLED = "_attention_is_settled"
_PAIRS = 1 << 24  # of a layer and a batch; more go to the fused kernel
_KEYS = 512  # in fp32 the fused kernel is as fast from here on
_GAIN = 1.25
_ROUNDS = 4
_ELSEWHERE = ("position_bias", "softcap", "cache", "head_mask", "s_aux")  # what the fused kernel's caller handles


@contextmanager
def fast_attention(model: nn.Module, way: str | None = None, *, batch_size: int = 32) -> Iterator[None]:
    """Until the end of the block the model attends in the faster way; answers differ by rounding alone.

    Inside another such block of the same model nothing changes.

    Args:
        model: of transformers (whose fused attention goes through its interface) or timm; any other is left alone.
        way: one of `Attention`; the fastest in fp32 if None.
        batch_size: samples at a time.
    """
    if _SETTLED in model.__dict__:
        yield
        return
    model.__dict__[_SETTLED] = True
    chosen = (way or faster_attention(bf16=False)) if _on_cpu() else "fused"
    name = next((name for name, its_way in _NAMES.items() if its_way == chosen), None)
    wholes, blocks = (_of_transformers(model), _of_timm(model, batch_size)) if name else ([], [])
    before = [(config, config._attn_implementation) for config in _configs(model)]
    for whole in wholes:
        whole.set_attn_implementation(name)  # and every model inside, also those that do not attend
    told = partial(_choose, pairs_in=_formats(chosen))
    hooks = [block.register_forward_pre_hook(told) for block in blocks if chosen != "pairs"]
    for block in blocks:
        block.fused_attn = False
    try:
        yield
    finally:
        del model.__dict__[_SETTLED]
        for config, own in before:
            config._attn_implementation_internal = own
        for hook in hooks:
            hook.remove()
        for block in blocks:
            block.fused_attn = True


def _formats(way: str) -> tuple[torch.dtype, ...]:
    """In which number formats it takes pairs."""
    one = {"pairs in bf16": (torch.bfloat16,), "pairs in fp32": (torch.float32,)}
    return one.get(way, (torch.bfloat16, torch.float32))


def _choose(block: Any, _: Any, *, pairs_in: tuple[torch.dtype, ...]) -> None:
    """Before a block of timm's attends: its queries will be of the format that autocast makes of them."""
    format = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    block.fused_attn = format not in pairs_in


def _configs(model: nn.Module) -> list[Any]:
    """The configurations of a model, of the models inside, and of their parts."""
    found: dict[int, Any] = {}
    open_ones: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    open_ones = [config for config in open_ones if hasattr(config, "sub_configs")]
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
        name = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if name in _NAMES:
            return _NAMES[name]
    return "fused"


def _of_transformers(model: nn.Module) -> list[Any]:
    """Models that use the fused kernel, outer ones first."""
    from transformers import AttentionInterface, PreTrainedModel
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    for name, way in _NAMES.items():
        AttentionInterface.register(name, partial(pairs_attention, pairs_in=_formats(way)))
        AttentionMaskInterface.register(name, sdpa_mask)
    found = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    return [
        module
        for module in found
        if getattr(module.config, "_attn_implementation", None) == "sdpa"
        and module._supports_sdpa
        and module._can_set_attn_implementation()
    ]


def _of_timm(model: nn.Module, batch_size: int) -> list[Any]:
    """Blocks that use the fused kernel, where the table of all pairs stays in bounds."""
    patches = max((getattr(module, "num_patches", 0) for module in model.modules()), default=0)
    return [
        module
        for module in model.modules()
        if getattr(module, "fused_attn", False) is True
        and 0 < patches <= _KEYS
        and batch_size * getattr(module, "num_heads", _PAIRS) * patches**2 <= _PAIRS
    ]


def pairs_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    pairs_in: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32),
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
        pairs_in: number formats; queries of any other go to the fused kernel.
        rest: what only some architectures use.

    Returns:
        (B, queries, heads, D).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if torch.is_autocast_enabled("cpu"):  # as the fused kernel would be given them: DINOv3's rotation is in fp32
        query, key, value = (part.to(torch.get_autocast_dtype("cpu")) for part in (query, key, value))
    pairs = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if (
        pairs > _PAIRS
        or query.dtype not in pairs_in
        or not query.dtype == key.dtype == value.dtype
        or (query.dtype == torch.float32 and key.shape[2] > _KEYS)
        or query.shape[1] != key.shape[1]
        or (attention_mask is None and causal and query.shape[2] > 1)
        or any(rest.get(name) is not None for name in _ELSEWHERE)
        or (attention_mask is not None and attention_mask.dtype == torch.bool and not attention_mask.any(-1).all())
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


def faster_attention(bf16: bool = True) -> Attention:
    """Pairs where they are clearly faster; a measurement, made once a process for each library of products.

    Args:
        bf16: whether there will be steps in bf16.
    """
    products = torch.get_float32_matmul_precision()
    if not _on_cpu():
        return "fused"
    in_bf16 = bf16 and _gain(products, torch.bfloat16) > _GAIN
    if _gain(products, torch.float32) > _GAIN:
        return "pairs" if in_bf16 else "pairs in fp32"
    return "pairs in bf16" if in_bf16 else "fused"


def _on_cpu() -> bool:
    return not torch.cuda.is_available() and not torch.backends.mps.is_available()


@cache
def _gain(products: str, format: torch.dtype) -> float:
    """How many times faster a small attention is in pairs, forward and backward: the least of a few rounds.

    Args:
        products: torch's precision of fp32 products now, which tells by whom they are computed.
        format: of queries, keys and values.
    """
    query, key, value = (torch.ones(8, 3, 128, 64, dtype=format, requires_grad=True) for _ in range(3))
    ways = {
        "fused": lambda: functional.scaled_dot_product_attention(query, key, value),
        "pairs": lambda: _attend(query, key, value, None, 0.0, 0.125),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            with torch.enable_grad():
                torch.autograd.grad(way().sum(), (query, key, value))
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds["fused"] / seconds["pairs"]
