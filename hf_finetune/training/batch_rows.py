"""Which rows of the data a training step has seen, and which of them are behind what went wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_finetune.data.streamed import StreamedRows
from hf_finetune.training.dry_run import batch_of, untouched
from hf_finetune.training.precision import launcher_shards_the_model

if TYPE_CHECKING:
    from hf_finetune.data import TaskData

_SHOWN = 64  # rows
_TRIED = 128


def rows_of_step(trainer: Any, step: int, batches: int) -> list[int] | None:
    """The training rows that this process has seen in a step, None where that cannot be told.

    The order of an epoch is a function of (seed, epoch), so it is drawn again; nothing is noted down in ordinary steps.

    Args:
        trainer: in training.
        step: updates before it.
        batches: that were accumulated in it.
    """
    loader = trainer.callback_handler.train_dataloader
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is None:  # a stream
        return None
    accumulated = trainer.args.gradient_accumulation_steps
    epoch, update = divmod(step, max(1, math.ceil(len(loader) / accumulated)))
    layer = sampler
    while layer is not None:
        if hasattr(layer, "set_epoch"):
            layer.set_epoch(epoch)
        layer = getattr(layer, "batch_sampler", None) or getattr(layer, "sampler", None)
    first = update * accumulated
    return [int(row) for batch in islice(iter(sampler), first, first + batches) for row in batch]


def names_of_rows(task: TaskData) -> Callable[[str, Sequence[int]], list[str]]:
    """(split, row numbers) -> as predictions.parquet names them: the row's id, with its source where there are several.

    Args:
        task: the data.
    """

    def names(split: str, rows: Sequence[int]) -> list[str]:
        samples = getattr(task, split)
        if isinstance(samples, StreamedRows):
            return [str(row) for row in samples.ids(rows).tolist()]
        columns = [name for name in ("id", "source") if name in samples.column_names]
        found = samples.select_columns(columns).with_format(None)[list(rows)]
        sources = found.get("source")
        if sources is None:
            return [str(row) for row in found["id"]]
        return [f"{row} of {source}" for row, source in zip(found["id"], sources, strict=True)]

    return names


def rows_in_words(trainer: Any, rows: Sequence[int] | np.ndarray | None, split: str = "train") -> str:
    """The first of the rows by name; nothing where they are not known."""
    if rows is None or not len(rows):
        return ""
    shown = [int(row) for row in rows[:_SHOWN]]
    names = trainer.row_names(split, shown) if trainer.row_names is not None else map(str, shown)
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return f"{', '.join(names)}{more} of {split}"


def suspects_in_words(trainer: Any, rows: Sequence[int] | None) -> str:
    """Each row on its own, in eval mode, with the weights as they are: whose loss or gradient is no number, and why."""
    if not rows or launcher_shards_the_model() or not _finite(trainer.model):
        return ""
    tried = rows[:_TRIED]
    found: dict[int, str] = {}
    with untouched(trainer):
        trainer.model.eval()
        trainer.model.zero_grad(set_to_none=True)  # of the step itself
        for row in tried:
            if (reason := _reason(trainer, row)) is not None:
                found[row] = reason
    if not found:
        return "each gives a finite loss and gradient, so look at the rate and the number format first"
    if len(found) == len(tried) > 1:
        return "none gives a finite loss and gradient: the weights are the reason, not these rows"
    named = rows_in_words(trainer, list(found)).removesuffix(" of train")
    reasons = dict.fromkeys(found.values())
    return f"{named} ({'; '.join(reasons)}); the other {len(tried) - len(found)} are fine"


def rates_in_words(optimizer: Any) -> str:
    """Least and greatest learning rate now, of each kind of parameter group."""
    found: dict[str, list[float]] = {}
    for group in getattr(optimizer, "param_groups", ()):
        found.setdefault(str(group.get("name", "all")).partition(" ")[0], []).append(float(group["lr"]))
    return ", ".join(
        f"{kind} {min(rates):.3g}{f' to {max(rates):.3g}' if max(rates) > min(rates) else ''}"
        for kind, rates in found.items()
    )


def _reason(trainer: Any, row: int) -> str | None:
    batch = batch_of(trainer, [row])
    with torch.enable_grad():
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    learning = [value.grad for value in trainer.model.parameters() if value.grad is not None]
    right = bool(torch.isfinite(loss)) and all(bool(torch.isfinite(grad).all()) for grad in learning)
    trainer.model.zero_grad(set_to_none=True)
    if right:
        return None
    wrong = [name for name, value in batch.items() if _is_wrong(value)]
    if wrong:
        return f"not finite: {', '.join(wrong)}"
    return f"loss {float(loss.detach()):.4g}"


def _is_wrong(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())


def _finite(model: torch.nn.Module) -> bool:
    return not any(_is_wrong(value.detach()) for value in (*model.parameters(), *model.buffers()))
