"""`model.dropout` and `model.drop_path`: noise in the backbone while it learns."""

from __future__ import annotations

import copy
import re
from typing import Any

from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import Anatomy, find_anatomy
from hf_finetune.model.surgery.rebuild import Patient, is_timm, rebuild, timm_accepts, timm_config

_DROPOUT = re.compile(r"dropout|pdrop")  # hidden_dropout_prob, attention_dropout, classifier_dropout, resid_pdrop ...
_TIMM_DROPOUT = ("drop_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate")
_PATH = "drop_path_rate"  # the same word in transformers and timm


def set_dropout(patient: Patient, rate: float) -> tuple[Patient, str]:
    """One rate for every dropout: of hidden layers, attention, embeddings and before the classifier.

    Raises:
        UserError: the family has no dropout.
    """
    key = f"model.dropout={rate:g}"
    net = patient.net
    if is_timm(net):
        names = [name for name in _TIMM_DROPOUT if timm_accepts(net, name)]
        config: Any = timm_config(net, **dict.fromkeys(names, rate))
    else:
        config = copy.deepcopy(net.config)
        names = [name for name, value in config.to_dict().items() if _DROPOUT.search(name) and _is_rate(value)]
        for name in names:
            setattr(config, name, rate)
    if not names and not any(isinstance(module, nn.Dropout) for module in net.modules()):
        raise UserError(
            f"{key}: {patient.kind} has no dropout layer. Remove model.dropout; model.head.dropout with "
            "model.head.kind=mlp, weight decay or augmentation do a like service."
        )
    patient = rebuild(patient, config, key)
    for module in patient.net.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate  # those that a family has fixed in its code
    return patient, f"dropout {rate:g}"


def _is_rate(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def set_drop_path(patient: Patient, rate: float) -> tuple[Patient, str]:
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): blocks are skipped for single samples while training.

    The chance rises linearly from 0 at the first block to `rate` at the last.

    Raises:
        UserError: the family has no stochastic depth.
    """
    key = f"model.drop_path={rate:g}"
    net = patient.net
    if is_timm(net):
        config: Any = timm_config(net, **{_PATH: rate}) if timm_accepts(net, _PATH) else None
    else:
        config = copy.deepcopy(net.config) if hasattr(net.config, _PATH) else None
        if config is not None:
            setattr(config, _PATH, rate)
    if config is not None:
        patient = rebuild(patient, config, key)
        anatomy = find_anatomy(patient.net, patient.fresh)
        if _rise(patient.net, anatomy, rate) or rate == 0:
            return patient, f"drop_path rising to {rate:g}"
    remedy = "model.dropout is the usual noise for text."
    if patient.net.main_input_name == "pixel_values":
        remedy = (
            "BEiT, DINOv2, Swin and ConvNeXt of transformers have it, and most of timm's models (its ViT, ResNet and "
            "EfficientNet too)."
        )
    raise UserError(f"{key}: {patient.kind} has no stochastic depth in its code. Remove model.drop_path; {remedy}")


def _rise(net: nn.Module, anatomy: Anatomy, rate: float) -> bool:
    """Sets the rates, since DINOv2 takes one for all blocks; whether there is a layer that skips."""
    found = False
    last = len(anatomy.blocks) - 1
    for number, block in enumerate(anatomy.blocks):
        for name in block.modules:
            module: Any = net.get_submodule(name)
            if "droppath" in type(module).__name__.lower():
                module.drop_prob = rate * number / last if last else rate
                found = True
    return found
