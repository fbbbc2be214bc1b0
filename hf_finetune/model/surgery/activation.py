"""`model.activation`: another activation in the hidden layers."""

from __future__ import annotations

import copy
from typing import Any, get_args

from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.surgery.rebuild import Patient, is_timm, rebuild, timm_accepts, timm_config
from hf_finetune.recipes.model_section import Activation

# Where transformers' families keep it; the first that a configuration has.
_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation", "ff_activation")
_TIMM_NAMES = {"hardswish": "hard_swish"}


def swap_activation(patient: Patient, name: str) -> tuple[Patient, str | None]:
    """The hidden activations of the backbone, by the configuration's own key; a pooler's or gate's own stay.

    Args:
        patient: the model.
        name: relu, gelu, silu, tanh, leaky_relu, elu, mish or hardswish.

    Returns:
        the changed model, and what was changed in words (None: it was so already).

    Raises:
        UserError: the family writes its activation nowhere, or does not know this one.
    """
    key = f"model.activation={name}"
    config = _config(patient, name, key)
    try:
        changed = rebuild(patient, config, key)
    except UserError as fault:  # timm's older families want a class, which cannot be written down
        raise _fixed(patient, key) from fault
    before = {place: type(module) for place, module in patient.net.named_modules()}
    swapped = [
        (before[place], type(module))
        for place, module in changed.net.named_modules()
        if before[place] is not type(module)
    ]
    if swapped:
        old = ", ".join(sorted({_word(kind) for kind, _ in swapped}))
        return changed, f"activation {old} -> {name} in {len(swapped)} layers"
    if _already(patient, name):
        return patient, None
    raise UserError(
        f"{key}: no hidden layer of {patient.checkpoint} ({patient.kind}) follows its configuration's activation. "
        "Remove model.activation, or use another checkpoint."
    )


def _config(patient: Patient, name: str, key: str) -> Any:
    net = patient.net
    if is_timm(net):
        if not timm_accepts(net, "act_layer"):
            raise _fixed(patient, key)
        return timm_config(net, act_layer=_TIMM_NAMES.get(name, name))
    from transformers.activations import ACT2CLS

    if name not in ACT2CLS:
        known = ", ".join(each for each in get_args(Activation) if each in ACT2CLS)
        raise UserError(f"{key}: transformers' models do not know {name}; they take {known}.")
    place = _place(net.config)
    if place is None:
        raise UserError(
            f"{key}: {patient.kind} has no key for it in its configuration, so that a saved model would lose it. "
            "Remove model.activation, or use another checkpoint."
        )
    config = copy.deepcopy(net.config)
    setattr(config, place, name)
    return config


def _fixed(patient: Patient, key: str) -> UserError:
    return UserError(
        f"{key}: the activation of {patient.kind} is fixed in its code. Remove model.activation, or use another "
        "checkpoint."
    )


def _place(config: Any) -> str | None:
    return next((place for place in _KEYS if isinstance(getattr(config, place, None), str)), None)


def _already(patient: Patient, name: str) -> bool:
    if is_timm(patient.net):
        wanted = name.replace("_", "")
        return any(_word(type(module)) == wanted for module in patient.net.modules())
    return getattr(patient.net.config, _place(patient.net.config) or "", None) == name


def _word(kind: type[nn.Module]) -> str:
    return kind.__name__.lower().removesuffix("activation")
