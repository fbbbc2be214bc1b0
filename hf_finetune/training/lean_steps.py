"""Steps that do not walk over what is frozen: clipping and clearing gradients looks at the parameters that learn.

The Trainer and accelerate go through all modules of a model five times a step, in Python. Where the head alone learns
and its features are kept, that took most of a step's time. What is computed is the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from accelerate import optimizer
from accelerate.utils import DistributedType
from transformers import Trainer

_WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)  # every process has all gradients


class LeanTrainer(Trainer):
    """A Trainer that knows which parameters it has given to its optimizer."""

    _learning: list[torch.nn.Parameter] | None = None

    def _run_epoch(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        """As the Trainer's; `model.zero_grad` clears the gradients that there can be."""
        if self.accelerator.distributed_type not in _WHOLE or self.accelerator.scaler is not None:
            super()._run_epoch(model, *args, **kwargs)
            return
        given = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        learning = [parameter for parameter in model.parameters() if id(parameter) in given]

        def zero_grad(set_to_none: bool = True) -> None:
            for parameter in learning:
                parameter.grad = None

        self._learning = learning
        model.__dict__["zero_grad"] = zero_grad
        looked_for = optimizer.is_lomo_available
        optimizer.is_lomo_available = cache(looked_for)  # else every step looks for a package on the disk, twice
        try:
            super()._run_epoch(model, *args, **kwargs)
        finally:
            optimizer.is_lomo_available = looked_for
            del model.__dict__["zero_grad"]
            self._learning = None

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        if self._learning is None:
            return super()._clip_grad_norm(model)
        return torch.nn.utils.clip_grad_norm_(self._learning, self.args.max_grad_norm)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        if self._learning is None or grad_norm is not None:
            return super()._get_grad_norm(model, grad_norm)
        return torch.nn.utils.clip_grad_norm_(self._learning, float("inf"))
