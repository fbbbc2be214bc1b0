"""What each strategy would cost, from the pace of a machine."""

from __future__ import annotations

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


def seconds_of(kind: str, pace: Pace, rows: Rows, epochs: float, *, kept: bool, blocks: int = 0) -> float:
    """What a run of a strategy takes, without its start and its report.

    Args:
        kind: head, freeze, lora, lp_ft, full or scratch.
        pace: of this machine.
        rows: of the splits.
        epochs: of training; validation after each.
        kept: whether what is frozen from the stem on runs once per row, not once per epoch.
        blocks: that learn, with freeze.
    """
    seen = epochs * rows.train
    looked = epochs * rows.validation + rows.validation + rows.test
    glance, backward = pace.read + pace.forward, pace.step - pace.forward
    if kind == "lora":
        step = pace.read + _LORA_FORWARD * pace.forward + _LORA_BACKWARD * backward
        total = seen * step + looked * glance
    elif kind in ("head", "freeze"):
        frozen = pace.frozen[-1 if kind == "head" else len(pace.frozen) - 1 - blocks]
        learning = max(0.0, 1 - frozen)
        once = rows.train + rows.validation + rows.test
        behind = learning * pace.step + _HEAD_STEP
        if kept:
            total = once * glance + seen * behind + looked * (learning * pace.forward + _HEAD_STEP)
        else:
            total = seen * (pace.read + frozen * pace.forward + behind) + looked * glance
    else:
        total = seen * (pace.read + pace.step) + looked * glance
        if kind == "lp_ft":  # its first epoch is the head's
            total -= min(1.0, epochs) * rows.train * backward
    return total / pace.processes
