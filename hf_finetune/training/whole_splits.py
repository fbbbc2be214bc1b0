"""Evaluation sees every sample, in the split's own order, whatever is said of training."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer


class WholeSplits(Trainer):
    """A Trainer whose options of training loaders are for training alone."""

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        """The Trainer's loader; `dataloader_drop_last` is for training: it would leave out evaluation samples."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> torch.utils.data.Sampler[int] | None:
        """In the split's own order: with `group_by_length` the Trainer would give predictions back reordered."""
        strategy, self.args.train_sampling_strategy = self.args.train_sampling_strategy, "random"
        try:
            return super()._get_eval_sampler(eval_dataset)
        finally:
            self.args.train_sampling_strategy = strategy
