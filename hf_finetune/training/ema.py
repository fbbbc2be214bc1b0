"""An exponential moving average of the weights, beside the ones that learn.

    average <- d x average + (1 - d) x weights        after each step, d = min(decay, (1 + t) / (10 + t)) at step t

The ramp (TensorFlow's, timm's) makes the average useful in runs shorter than 1 / (1 - decay) steps. Buffers (BatchNorm
statistics, averages themselves) are copied. With decay 0 it is the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.errors import UserError

FILE = "ema.safetensors"


class Ema(TrainerCallback):
    """Averages what learns, and keeps the average in every checkpoint.

    Args:
        decay: 0 to below 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.parameters: dict[str, torch.Tensor] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        self._persistent: set[str] | None = None  # names of what is saved: asked for once, not at each step

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The average, by the model's names."""
        return self.parameters | self.buffers

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the step into the average."""
        self.update(kwargs["model"])

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average; a parameter that begins to learn starts as it is."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        live = dict(model.named_parameters())
        for name, parameter in live.items():
            if parameter.requires_grad and name not in self.parameters:
                self.parameters[name] = parameter.detach().clone()
        averages: Any = [tensor.to(live[name].device) for name, tensor in self.parameters.items()]
        if averages:
            get_ema_multi_avg_fn(decay)(averages, [live[name].detach() for name in self.parameters], self.steps)
        self.parameters = dict(zip(self.parameters, averages, strict=True))
        if self._persistent is None:
            self._persistent = set(model.state_dict(keep_vars=True))
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if name in self._persistent}
        self.steps += 1

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint, before it is sealed."""
        from safetensors.torch import save_file

        tensors = {f"parameter.{name}": tensor.contiguous() for name, tensor in self.parameters.items()}
        tensors |= {f"buffer.{name}": tensor.contiguous() for name, tensor in self.buffers.items()}
        save_file(tensors, str(folder / FILE), metadata={"steps": str(self.steps)})

    def load(self, folder: Path) -> None:
        """Read the average back.

        Raises:
            UserError: the checkpoint has none.
        """
        from safetensors import safe_open

        if not (folder / FILE).is_file():
            raise UserError(f"{folder} was written without average.ema: give another output_dir.")
        with safe_open(str(folder / FILE), framework="pt") as file:
            self.steps = int(file.metadata()["steps"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        self.parameters = {k.removeprefix("parameter."): v for k, v in tensors.items() if k.startswith("parameter.")}
        self.buffers = {k.removeprefix("buffer."): v for k, v in tensors.items() if k.startswith("buffer.")}
