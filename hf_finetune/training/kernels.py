"""Who computes on the CPU during a run: chosen by the first process for all, and by the run's beginning for its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from hf_finetune.evaluation.products import fast_products, faster_library
from hf_finetune.model.attention import fast_attention, faster_attention
from hf_finetune.training.agreement import as_the_first


@contextmanager
def fast_kernels(model: nn.Module, recorded: Mapping[str, Any], batch_size: int) -> Iterator[None]:
    """Until the end of the block, fp32 products and attention by what is fastest here.

    Args:
        model: that learns.
        recorded: facts of the run that this one goes on with.
        batch_size: samples at a time.
    """
    products = as_the_first(recorded.get("products") or faster_library())
    with fast_products(products):
        # What attention is fastest depends on who multiplies: it is asked inside.
        attention = as_the_first(recorded.get("attention") or faster_attention())
        with fast_attention(model, attention, batch_size=batch_size):
            yield
