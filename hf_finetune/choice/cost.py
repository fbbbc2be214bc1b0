"""What each strategy would cost, from the pace of a machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

# LoRA: the forward pass with adapters, and of the backward pass the half that goes through the layers.
_LORA_FORWARD, _LORA_BACKWARD = 1.1, 0.6
_HEAD_STEP = 2e-5  # seconds of a row that is kept features, in a step of the head
_BACKWARD = 2.0  # times the forward pass, where only the whole step is known: two products for each of it


@dataclass(frozen=True)
class Pace:
    """Seconds of one row on this machine.

    Args:
        read: decoding and preprocessing.
        step: forward and backward of a training step in which everything learns.
        frozen: share of the forward pass's operations before each block, and before the head, (blocks + 1,).
        in_bf16: whether the step is in bf16.
        processes: that share the rows.
    """

    read: float
    step: float
    frozen: tuple[float, ...]
    in_bf16: bool
    processes: int = 1

    @property
    def forward(self) -> float:
        """Seconds of the forward pass alone."""
        return self.step / (1 + _BACKWARD)


@dataclass(frozen=True)
class Rows:
    """How many rows a run reads: in training, to choose the checkpoint, to score."""

    train: int
    validation: int
    test: int


def seconds_of(
    kind: str, pace: Pace, rows: Rows, epochs: float, *, kept: bool, blocks: int = 0, most: float = math.inf
) -> float:
    """What a run of a strategy takes, without its start and its report.

    Args:
        kind: head, freeze, lora, lp_ft, full or scratch.
        pace: of this machine.
        rows: of the splits.
        epochs: of training; validation after each.
        kept: whether what is frozen from the stem on runs once per row, not once per epoch.
        blocks: that learn, with freeze.
        most: seconds of training (`training.max_minutes`).
    """
    seen = epochs * rows.train
    glance, backward = pace.read + pace.forward, pace.step - pace.forward
    first, step = 0.0, pace.read + pace.step
    if kind == "lora":
        step = pace.read + _LORA_FORWARD * pace.forward + _LORA_BACKWARD * backward
    elif kind in ("head", "freeze"):
        frozen = pace.frozen[-1 if kind == "head" else len(pace.frozen) - 1 - blocks]
        learning = max(0.0, 1 - frozen)
        step = learning * pace.step + _HEAD_STEP
        if kept:
            first = (rows.train + rows.validation + rows.test) * glance
            glance = learning * pace.forward + _HEAD_STEP
        else:
            step += pace.read + frozen * pace.forward
    training = seen * step + epochs * rows.validation * glance
    if kind == "lp_ft":  # its first epoch is the head's
        training -= min(1.0, epochs) * rows.train * backward
    after = (rows.validation + rows.test) * glance
    return (first + after) / pace.processes + min(training / pace.processes, most)
