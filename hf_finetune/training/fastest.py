"""The number format and the memory layout in which this model's steps are fastest, found by taking a few.

What a name cannot tell: on one and the same CPU, bf16 doubles the speed of a ViT and slows an EfficientNet-Lite down.
bf16 is tried only where the hardware computes in it; weights stay fp32. Images may lie in memory channel by channel or
pixel by pixel ("channels last"), which changes the speed of convolutions and the last bits of their sums.

The steps are real ones, forward and backward, of training rows, and leave no trace (`dry_run.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hf_finetune.training.dry_run import batch_of, untouched
from hf_finetune.training.known_formats import key_of_format, recall_format, remember_format
from hf_finetune.training.precision import NumberFormat, launcher_shards_the_model
from hf_finetune.training.work import Work, counted, worth_measuring

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer

_SHARE, _AT_MOST = 0.03, 5.0  # of the run's expected time, and seconds
_ROUNDS = 3
_FEW, _HOPELESS = 4, 1.5  # samples of a first look, and how much slower needs no second
_METHOD = 2  # another number where what was measured before would be measured otherwise
# bf16 rounds to three digits: it must be worth it. So much a measurement may err, too.
_GAIN = 1.1
_CONVOLUTIONS = 4  # a model with fewer has them for its patches alone


class Way(NamedTuple):
    """One way of taking a step."""

    bf16: bool
    channels_last: bool

    def __str__(self) -> str:
        return ("bf16" if self.bf16 else "fp32") + (" channels last" if self.channels_last else "")


def settle_format(
    trainer: FinetuneTrainer, given: NumberFormat, recorded: Mapping[str, Any] | None = None
) -> NumberFormat:
    """Let the trainer compute in the fastest way that the user leaves open; all processes do what rank 0 finds.

    A run too small to be worth it computes in fp32, with the layout of the checkpoint: there is nothing to gain, and
    so it is the same on every machine.

    Args:
        trainer: before training.
        given: by the user, the launcher, or the hardware.
        recorded: facts of the run that this one goes on with: it must go on as it began.
    """
    if launcher_shards_the_model() or given.name == "fp16":
        return given
    found: list[Any] = [None]
    if trainer.args.process_index == 0:
        found[0] = _recorded(given, recorded or {}) or _decide(trainer, given)
    if trainer.args.world_size > 1:
        torch.distributed.broadcast_object_list(found, src=0)
    name, reason, channels_last = found[0]
    trainer.compute_in(bf16=name == "bf16", channels_last=channels_last)
    return NumberFormat(name, reason)


def _recorded(given: NumberFormat, facts: Mapping[str, Any]) -> tuple[str, str, bool] | None:
    if facts.get("precision") not in ("no", "bf16"):
        return None
    name, reason = (facts["precision"], "as this run began") if given.open else given
    return name, reason, bool(facts.get("channels_last"))


def _decide(trainer: FinetuneTrainer, given: NumberFormat) -> tuple[str, str, bool]:
    ways = _ways(trainer.model, given)
    if len(ways) == 1:
        return given.name, given.reason, ways[0].channels_last
    name = "no" if given.open else given.name
    with untouched(trainer):
        rows = len(trainer.train_dataset) * trainer.args.num_train_epochs  # type: ignore[arg-type]
        if trainer.args.max_steps > 0:
            rows = trainer.args.max_steps * trainer.get_total_train_batch_size(trainer.args)
        batch = batch_of(trainer, _middling(trainer.train_dataset, 2))
        if not worth_measuring(_work(trainer, batch).total / 2, rows, trainer.args.device):
            return name, "a small run" if name != given.name else given.reason, False
        key = key_of_format(trainer, batch, f"{given.name} {given.open} {_METHOD}")
        if (known := recall_format(key)) is not None:
            return known
        cost, samples = _measure(trainer, ways, rows)
    if not cost:
        return given.name, given.reason, False  # not even one step fits into memory: training will say so
    best = min(cost, key=lambda way: cost[way] * (_GAIN if way.bf16 else 1.0))
    each = ", ".join(f"{way} {1000 * cost[way]:.3g}" for way in sorted(cost, key=lambda way: cost[way]))
    words = f"ms a step of {samples}: {each}"
    found = "bf16" if best.bf16 else "no", words if given.open else f"{given.reason}; {words}", best.channels_last
    remember_format(key, found)
    return found


def _ways(model: nn.Module, given: NumberFormat) -> list[Way]:
    """What is tried, the likely fastest first."""
    formats = [True, False] if given.open and given.name == "bf16" else [given.name == "bf16"]
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    layouts = [True, False] if convolutions >= _CONVOLUTIONS else [False]
    return [Way(bf16, channels_last) for channels_last in layouts for bf16 in formats]


def _work(trainer: FinetuneTrainer, batch: dict[str, Any]) -> Work:
    """The work of the batch's forward pass."""
    with counted(trainer.model) as work:
        trainer.compute_loss(trainer.model, batch)
    return work


def _measure(trainer: FinetuneTrainer, ways: list[Way], rows: float) -> tuple[dict[Way, float], int]:
    """Seconds of a step in each way that may be the fastest, and its samples.

    A few samples tell which ways are out of the question; what is left, if more than one, is decided at a size as near
    to the batch as the time allows: of small batches bf16 gains more.
    """
    whole = trainer.args.train_batch_size
    few = whole if trainer.args.device.type == "cuda" else min(_FEW, whole)
    cost = _costs(trainer, ways, few, seconds=0.0)
    if not cost:
        return {}, few
    close = [way for way in cost if cost[way] < _HOPELESS * min(cost.values())]
    each = min(cost.values()) / few
    budget = min(_SHARE * rows * each, _AT_MOST)
    samples = min(whole, int(budget / (2 * len(close) * each)))  # once to warm up, once at least on the clock
    if len(close) == 1 or samples < 2 * few:
        return cost, few
    return _costs(trainer, close, samples, budget / 2) or cost, samples


def _costs(trainer: FinetuneTrainer, ways: list[Way], samples: int, seconds: float) -> dict[Way, float]:
    """Seconds of a step in each way that fits into memory: the least of a few, since other work only adds.

    Args:
        trainer: inside of `untouched`.
        ways: to be tried in turn.
        samples: of the batch.
        seconds: for the steps on the clock, of which each way has one at least.
    """
    batch = batch_of(trainer, _middling(trainer.train_dataset, samples))
    fitting = [way for way in ways if _seconds(trainer, batch, way) is not None]
    cost: dict[Way, float] = {}
    began = time.perf_counter()
    for number in range(_ROUNDS):
        if number and time.perf_counter() - began > seconds:
            break
        for way in fitting:
            if (took := _seconds(trainer, batch, way)) is not None:
                cost[way] = min(cost.get(way, took), took)
    return cost


def _seconds(trainer: FinetuneTrainer, batch: dict[str, Any], way: Way) -> float | None:
    """Seconds of one step; None where it does not fit into memory. On a CPU, processor time: others use it too."""
    trainer.compute_in(*way)
    on_gpu = trainer.args.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    try:
        if on_gpu:
            torch.cuda.synchronize()
        began = clock()
        trainer.compute_loss(trainer.model, batch).backward()
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - began
    except torch.OutOfMemoryError:
        return None
    finally:
        trainer.model.zero_grad(set_to_none=True)


def _middling(samples: Any, size: int) -> list[int]:
    """The first rows; of texts those of middling length, which are as good as a mean batch."""
    lengths = getattr(samples, "lengths", None)
    if lengths is None:
        return list(range(min(size, len(samples))))
    rows: list[int] = np.argsort(np.abs(np.asarray(lengths) - np.mean(lengths)), kind="stable")[:size].tolist()
    return rows
