"""The two choices that a run on the CPU makes for itself: who multiplies in fp32, and how attention is computed.

    python benchmarks/cpu_kernels.py --out benchmarks/results/cpu_kernels.json

Each pair is run in turn, in processor time, the least of several; memory that a step frees is kept, as in our runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from circumstances import circumstances
from torch import Tensor
from torch.nn import functional

from hf_finetune.evaluation.products import fast_products
from hf_finetune.model.attention import fast_attention, pairs_attention
from hf_finetune.training import keep_freed_memory

_PRODUCTS = ((6304, 192, 768), (6304, 768, 192), (4096, 384, 1536), (4096, 768, 3072))
_ATTENTION = ((32, 3, 197, 64), (32, 12, 24, 32), (8, 12, 128, 64), (8, 12, 197, 64), (4, 12, 512, 64))
_MODELS = (("WinKawaks/vit-tiny-patch16-224", 32), ("sentence-transformers/all-MiniLM-L6-v2", 32))


def main() -> None:
    """Measure, print a line each, and write them to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-models", action="store_true", help="the operations alone")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    lines = [_product(size, options.rounds) for size in _PRODUCTS]
    lines += [
        _attention(size, dtype, masked, options.rounds)
        for size in _ATTENTION
        for dtype in (torch.float32, torch.bfloat16)
        for masked in (False, True)
    ]
    if not options.no_models:
        lines += [line for name, size in _MODELS for line in _model(name, size, options.rounds)]
    for line in lines:
        print(f"{line['what']:<66} {line['before']:9.2f} -> {line['after']:8.2f} ms  {line['ratio']:5.2f} times faster")
    if options.out:
        result = {"lines": lines, "threads": torch.get_num_threads(), **circumstances()}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _line(what: str, before: Callable[[], Any], after: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Milliseconds of both, each in turn: the least, since other work only adds."""
    best = [float("inf"), float("inf")]
    for attempt in range(rounds + 1):
        for number, way in enumerate((before, after)):
            began = time.process_time()
            way()
            if attempt:
                best[number] = min(best[number], 1000 * (time.process_time() - began))
    found = {"before": round(best[0], 3), "after": round(best[1], 3), "ratio": round(best[0] / best[1], 3)}
    return {"what": what, **found}


def _by(library: str, product: Callable[[], Any]) -> None:
    with fast_products(library):
        product()


def _product(size: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    rows, inner, columns = size
    x, y = torch.randn(rows, inner), torch.randn(columns, inner)
    product = partial(functional.linear, x, y)
    what = f"fp32 product {rows} x {inner} x {columns}: MKL -> oneDNN"
    return _line(what, partial(_by, "MKL", product), partial(_by, "oneDNN", product), rounds)


def _attention(size: tuple[int, ...], dtype: torch.dtype, masked: bool, rounds: int) -> dict[str, Any]:
    batch, heads, tokens, width = size
    made = [torch.randn(batch, tokens, heads, width, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    mask = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
    mask[::2, :, :, tokens // 2 :] = False
    given = mask if masked else None
    layer = torch.nn.Module()
    layer.is_causal = False  # type: ignore[assignment]

    def step(attend: Callable[..., Tensor]) -> None:
        torch.autograd.grad(attend(*made).float().sum(), made)

    def fused(*states: Tensor) -> Tensor:
        query, key, value = states
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=given)

    def pairs(*states: Tensor) -> Tensor:
        query, key, value = states
        return pairs_attention(layer, query, key, value, given)[0]

    words = f"{str(dtype).removeprefix('torch.')}{', masked' if masked else ''}"
    what = f"attention step {'x'.join(map(str, size))} {words}: fused, MKL -> pairs, oneDNN"
    return _line(what, partial(_by, "MKL", partial(step, fused)), partial(_by, "oneDNN", partial(step, pairs)), rounds)


def _model(name: str, size: int, rounds: int) -> list[dict[str, Any]]:
    """Whole passes and steps, MKL and fused attention against both choices."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    if "vit" in name:
        model = AutoModelForImageClassification.from_pretrained(name)
        inputs = {"pixel_values": torch.randn(size, 3, 224, 224)}
    else:
        model = AutoModelForSequenceClassification.from_pretrained(name)
        ids = torch.randint(1000, 20000, (size, 24))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def forward(bf16: bool) -> None:
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            model(**inputs)

    def step(bf16: bool) -> None:
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(**inputs).logits
        logits.float().logsumexp(-1).mean().backward()
        model.zero_grad()

    def chosen(way: Callable[[bool], None], bf16: bool) -> None:
        with fast_products(), fast_attention(model):
            way(bf16)

    return [
        _line(
            f"{name.split('/')[1]} {size} {words} {'bf16' if bf16 else 'fp32'}: torch's choice -> ours",
            partial(way, bf16),
            partial(chosen, way, bf16),
            rounds,
        )
        for words, way in (("forward", forward), ("step", step))
        for bf16 in (False, True)
    ]


if __name__ == "__main__":
    main()
