"""A model built again from a changed configuration, with the weights it had."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_finetune.errors import UserError
from hf_finetune.model.heads import seeded
from hf_finetune.model.quiet import quiet

# A weight of another shape, from its name, its old value and its new shape; None where it cannot be made.
Resize = Callable[[str, torch.Tensor, torch.Size], torch.Tensor | None]


@dataclass(frozen=True)
class Patient:
    """A model under surgery.

    Args:
        net: a classification model, or a backbone without a head; its `config` says everything about its architecture.
        checkpoint: what the user wrote, for messages.
        scratch: the weights are random, and those of another shape are drawn anew rather than made of them.
        seed: of what is drawn.
        fresh: names of the parameters that are not from the checkpoint.
    """

    net: PreTrainedModel
    checkpoint: str
    scratch: bool = False
    seed: int = 0
    fresh: frozenset[str] = field(default_factory=frozenset)

    @property
    def kind(self) -> str:
        """The family, for messages."""
        if is_timm(self.net):
            return f"timm's {type(self.net.timm_model).__name__}"
        return str(self.net.config.model_type)


def is_timm(net: Any) -> bool:
    """Whether this is a timm model in transformers' wrapper."""
    return isinstance(getattr(net, "timm_model", None), torch.nn.Module)


def timm_accepts(net: Any, argument: str) -> bool:
    """Whether the class of a wrapped timm model takes an argument of that name."""
    return argument in inspect.signature(type(net.timm_model).__init__).parameters


def timm_config(net: Any, **arguments: Any) -> Any:
    """The configuration of a wrapped timm model with further arguments for `timm.create_model`."""
    config = copy.deepcopy(net.config)
    config.model_args = {**(config.model_args or {}), **arguments}
    return config


def rebuild(
    patient: Patient, config: Any, key: str, *, resize: Resize | None = None, old_name: Callable[[str], str] = str
) -> Patient:
    """The model of a changed configuration, with the old weights.

    Args:
        patient: the model as it was; it is left alone.
        config: its changed configuration.
        key: what asks for the change, as `model.image_size=96`, for messages.
        resize: makes the weights whose shape has changed.
        old_name: from the name of a weight in the new model to its name in the old one.

    Raises:
        UserError: the architecture does not take the configuration, or the weights do not fit it.
    """
    net = build(patient, config, key)
    names = {name for name, _ in net.named_parameters() if old_name(name) in patient.fresh}
    if not patient.scratch:
        net.load_state_dict(_transplant(patient, net.state_dict(), key, resize, old_name))
    else:
        names = {name for name, _ in net.named_parameters()}
    return Patient(net, patient.checkpoint, patient.scratch, patient.seed, frozenset(names))


def build(patient: Patient, config: Any, key: str) -> PreTrainedModel:
    """A model with random weights, by the class of the patient's.

    Raises:
        UserError: the architecture does not take the configuration.
    """
    try:
        with quiet(), seeded(patient.seed):
            return type(patient.net)._from_config(config, dtype=torch.float32)
    except Exception as fault:  # whatever a library's constructor makes of a value it does not expect
        raise UserError(f"{key}: {patient.kind} of {patient.checkpoint} does not take that ({fault}).") from fault


def _transplant(
    patient: Patient,
    wanted: dict[str, torch.Tensor],
    key: str,
    resize: Resize | None,
    old_name: Callable[[str], str],
) -> dict[str, torch.Tensor]:
    given = patient.net.state_dict()
    state = {}
    misfits = []
    for name, place in wanted.items():
        value = given.get(old_name(name))
        if value is not None and value.shape != place.shape:
            before = value.shape
            value = resize(name, value, place.shape) if resize else None
            if value is None:
                misfits.append(f"{name} has {tuple(before)} values and would need {tuple(place.shape)}")
        elif value is None:
            misfits.append(f"{name} is not in the checkpoint")
        if value is not None:
            state[name] = value
    if misfits:
        more = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        raise UserError(
            f"{key}: the weights of {patient.checkpoint} ({patient.kind}) cannot be fitted to that: {misfits[0]}{more}."
        )
    return state
