"""Who must know the epoch, hears of it: also after a resume, also in loader workers, also on every process."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EpochNumber(TrainerCallback):
    """Tells the training data set its epoch, from which random transforms are seeded, and the balanced sampler.

    Args:
        sampler: something with `set_epoch`, or None.
    """

    def __init__(self, sampler: Any = None) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the number of passes finished so far."""
        for listener in (kwargs["train_dataloader"].dataset, self.sampler):
            if hasattr(listener, "set_epoch"):
                listener.set_epoch(math.floor(state.epoch or 0))
