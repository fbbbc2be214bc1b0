"""Steps taken before training, to measure or to see what fits, that leave no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hf_finetune.evaluation.predict import take

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer


def batch_of(trainer: FinetuneTrainer, rows: Sequence[int]) -> dict[str, Any]:
    """Training rows as a batch that `compute_loss` takes, on the device."""
    batch: dict[str, Any] = trainer._prepare_inputs(trainer.data_collator(take(trainer.train_dataset, rows)))
    return batch if trainer.mixing is None else trainer.mixing(batch, 0)


@contextmanager
def untouched(trainer: FinetuneTrainer) -> Iterator[None]:
    """Training mode inside; afterwards statistics, gradients, modes, loss, random generators and format are as before.

    Weights change only by an optimizer's step, of which there is none.
    """
    distillation, objective, before = trainer.distillation, trainer.objective, trainer.format
    trainer.distillation, trainer.objective = None, copy.deepcopy(objective)  # a teacher costs the same either way
    state = random.getstate(), np.random.get_state()
    try:
        with untouched_model(trainer.model, trainer.args.device):
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        trainer.distillation, trainer.objective = distillation, objective
        trainer.compute_in(*before)


@contextmanager
def untouched_model(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Training mode inside; afterwards statistics, gradients, modes and torch's generators are as before."""
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            model.train()
            yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        for module, mode in modes.items():
            module.training = mode
