"""How much work a model's pass is, counted and not timed: the same on every machine, however busy.

By operations alone MobileNetV2 would be a quarter of ViT-Tiny's work, where it takes four fifths of the time: its
convolutions of single channels do little with each number that they fetch and write.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

# Work of a training run below which nothing is measured: some twenty seconds, in which the faster format of two saves
# about what it costs to find it out.
_WORTH_MEASURING = {"cpu": 4e12, "cuda": 1e14}
# What a number that a layer puts out costs, in operations: by the fp32 steps of docs/speed.md, on one core of a CPU,
# MobileNetV2 takes 77 and EfficientNet-Lite0 100 more for each than operations cost ViT-Tiny. Not measured on a GPU.
_OPERATIONS_OF_A_NUMBER = 80
_PASSES = 3  # of a training step: the backward pass counts twice


@dataclass
class Work:
    """What ran while it was counted.

    Attributes:
        counter: of floating-point operations: products, convolutions and attention.
        numbers: that layers without parts of their own have put out; what functions and layers with several outputs
            write is left out, and an Identity counted: an estimate, for a limit.
    """

    counter: FlopCounterMode
    numbers: int = 0

    @property
    def operations(self) -> float:
        """Floating-point operations."""
        return float(self.counter.get_total_flops())

    @property
    def total(self) -> float:
        """Operations, and as many more as the numbers are worth that came and went."""
        return self.operations + _OPERATIONS_OF_A_NUMBER * self.numbers


@contextmanager
def counted(model: nn.Module) -> Iterator[Work]:
    """Count the work of what runs inside of the block, without gradients.

    Args:
        model: whose layers are watched.

    Yields:
        what was counted so far.
    """
    work = Work(_operation_counter())

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        work.numbers += output.numel() if isinstance(output, torch.Tensor) else 0

    single = [module for module in model.modules() if next(module.children(), None) is None]
    handles = [module.register_forward_hook(add) for module in single]
    try:
        with torch.no_grad(), work.counter:
            yield work
    finally:
        for handle in handles:
            handle.remove()


def worth_measuring(work: float, rows: float, device: torch.device) -> bool:
    """Whether a run is large enough to look for its fastest format.

    Args:
        work: of one row's forward pass, `Work.total`.
        rows: that are learned from, each as often as it is.
        device: that trains.
    """
    return _PASSES * rows * work >= _WORTH_MEASURING.get(device.type, float("inf"))


def _operation_counter() -> FlopCounterMode:
    """Higher-order operators count nothing where torch can pass them by."""
    from torch.utils.flop_counter import FlopCounterMode

    if "skip_unsupported" not in inspect.signature(FlopCounterMode).parameters:  # as in torch 2.13
        return FlopCounterMode(display=False)
    return FlopCounterMode(display=False, skip_unsupported=True)
