"""The format that training steps compute in: bf16 or fp32, and how images and convolutions lie in memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from transformers import Trainer

from hf_finetune.training.prefix_cache import PrefixCache


class FormattedSteps(Trainer):
    """A Trainer whose own autocast is for training steps: evaluation is in fp32, as the saved model answers."""

    autocast_dtype: torch.dtype | None = None
    channels_last = False
    prefix: PrefixCache | None = None

    @property
    def format(self) -> tuple[bool, bool]:
        """Whether training steps compute in bf16, and whether images and convolutions lie channels last in memory."""
        return self.autocast_dtype is not None, self.channels_last

    def compute_in(self, bf16: bool, channels_last: bool) -> None:
        """Change the format of the steps to come; values and files stay the same."""
        self.autocast_dtype, self.channels_last = torch.bfloat16 if bf16 else None, channels_last
        # A convolution takes the layout of its weights, and what follows that of its input.
        self.model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def _precision(self, model: torch.nn.Module) -> Any:
        small = self.prefix is not None and self.prefix.head_alone  # bf16 costs more than it saves there
        if self.autocast_dtype is None or not model.training or small:
            return nullcontext()
        return torch.autocast(self.args.device.type, dtype=self.autocast_dtype)
