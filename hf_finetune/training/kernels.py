"""Who computes on the CPU during a run: chosen by the first process for all, and by the run's beginning for its end.

A first run measures; later ones on the same machine take what it found (`known_kernels.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from hf_finetune.evaluation.products import fast_products, faster_library, library_in_use
from hf_finetune.model.attention import fast_attention, faster_attention
from hf_finetune.training.agreement import as_the_first
from hf_finetune.training.known_kernels import known


@contextmanager
def fast_kernels(model: nn.Module, recorded: Mapping[str, Any], batch_size: int) -> Iterator[None]:
    """Until the end of the block, fp32 products and attention by what is fastest here.

    Args:
        model: that learns.
        recorded: facts of the run that this one goes on with.
        batch_size: samples at a time.
    """
    products = as_the_first(recorded.get("products") or known("products", faster_library))
    with fast_products(products):
        # What attention is fastest depends on who multiplies: it is asked inside.
        measured = f"attention of each format beside {library_in_use()}"
        attention = as_the_first(recorded.get("attention") or known(measured, faster_attention))
        with fast_attention(model, attention, batch_size=batch_size):
            yield
