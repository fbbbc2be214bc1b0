"""How fast this model learns on this machine.

A training step is measured (forward and backward of a few rows); floating-point operations, counted and not timed,
say which part of it lies behind a strategy's frozen blocks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_finetune.choice.cost import Pace
from hf_finetune.choice.depths import samples_of
from hf_finetune.data import normalized
from hf_finetune.evaluation.predict import best_device, take
from hf_finetune.evaluation.products import fast_products, faster_library, library_in_use
from hf_finetune.model.attention import fast_attention, faster_attention
from hf_finetune.training.dry_run import untouched_model
from hf_finetune.training.known_kernels import known
from hf_finetune.training.precision import choose_precision
from hf_finetune.training.work import Work, counted, worth_measuring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import Recipe

_ROWS = ((200, 8), (1000, 16))  # training rows below which a measured step has so many
_MOST_ROWS = 32


@contextmanager
def as_in_a_run(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Until the end of the block, products and attention by what is fastest here; of several processes one may ask."""
    with fast_products(known("products", faster_library)):
        attention = known(f"attention of each format beside {library_in_use()}", faster_attention)
        with fast_attention(model, attention, batch_size=batch_size):
            yield


def measure_pace(
    recipe: Recipe, loaded: LoadedModel, rows: Dataset, epochs: float, processes: int = 1, device: Any = None
) -> Pace:
    """Take two training steps of a few rows, the first to warm up; the model is left as it was.

    Args:
        recipe: for how rows are read.
        loaded: the checkpoint.
        rows: of training, all of them.
        epochs: of the run.
        processes: that will train.
        device: where; the best one there is if None.
    """
    device = torch.device(device) if device is not None else best_device()
    size = next((size for most, size in _ROWS if len(rows) < most), _MOST_ROWS)
    few = rows.select(range(min(size, len(rows)))).remove_columns("label")
    samples, collate = samples_of(recipe, loaded.processor, few)
    began = time.perf_counter()
    read = collate(take(samples, range(len(few))))
    reading = (time.perf_counter() - began) / len(few)
    model = loaded.model.to(device)
    batch = normalized({name: value.to(device) for name, value in read.items() if name != "labels"})
    work, frozen = _work(loaded, batch)
    formats = [False]
    if worth_measuring(work.total / len(few), epochs * len(rows), device) and choose_precision("auto").name == "bf16":
        formats.append(True)
    cost = {}
    for in_bf16 in formats:
        _step(model, batch, in_bf16)
        cost[in_bf16] = _step(model, batch, in_bf16) / len(few)
    best = min(cost, key=lambda each: cost[each])
    return Pace(reading, cost[best], frozen, best, processes)


def _step(model: nn.Module, batch: dict[str, Any], in_bf16: bool) -> float:
    """Seconds of forward and backward; statistics, gradients and modes are afterwards as before."""
    device = next(model.parameters()).device
    with untouched_model(model, device):
        _wait(device)
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            logits = model(**batch).logits
        logits.float().square().mean().backward()
        _wait(device)
        return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _work(loaded: LoadedModel, batch: dict[str, Any]) -> tuple[Work, tuple[float, ...]]:
    """The work of a batch's forward pass, and the share of its operations before each block and before the head."""
    model, marks = loaded.model, []
    first = {block.modules[0]: number for number, block in enumerate(loaded.anatomy.blocks)}
    before = [0.0] * len(first)
    was_training = model.training
    model.eval()
    with counted(model) as work:
        handles = [
            model.get_submodule(name).register_forward_pre_hook(_mark(before, number, work))
            for name, number in first.items()
        ]
        try:
            model(**batch)
        finally:
            for handle in handles:
                handle.remove()
            model.train(was_training)
    marks = [value / max(work.operations, 1.0) for value in before]
    return work, (*_growing(marks), 1.0)


def _mark(before: list[float], number: int, work: Work) -> Any:
    def hook(_: nn.Module, __: Any) -> None:
        before[number] = work.operations

    return hook


def _growing(values: Sequence[float]) -> Iterator[float]:
    """Each at least what came before: a block that runs several times counts from its last."""
    most = 0.0
    for value in values:
        most = max(most, value)
        yield most
