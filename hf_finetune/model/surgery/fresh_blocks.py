"""`model.reinit_blocks`: random weights for the top blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import find_anatomy
from hf_finetune.model.heads import seeded
from hf_finetune.model.quiet import quiet
from hf_finetune.model.surgery.rebuild import Patient, build, is_timm


def reinit_blocks(patient: Patient, count: int) -> tuple[tuple[str, ...], str]:
    """Gives the top blocks the weights that the model's own code gives a new model, and BatchNorm new statistics.

    What stands after the last block (final norm, pretrained pooler) belongs to it and is drawn anew too, as by Zhang et
    al. 2021 (arXiv:2006.05987), who find that BERT's top layers are too specialised for small data.

    Args:
        patient: the model, changed in place.
        count: how many blocks, from the top.

    Returns:
        names of the parameters that are new, and what was changed in words.

    Raises:
        UserError: there are not so many blocks.
    """
    key = f"model.reinit_blocks={count}"
    blocks = find_anatomy(patient.net, patient.fresh).blocks
    if count > len(blocks):
        raise UserError(
            f"{key}: {patient.checkpoint} has {len(blocks)} {'block' if len(blocks) == 1 else 'blocks'}. Give at most "
            "that many."
        )
    top = blocks[len(blocks) - count :]
    fresh = _random_state(patient, key)
    modules = {name for block in top for name in block.modules}
    parameters = tuple(name for block in top for name in block.parameters)
    state = patient.net.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if name in parameters or name.rpartition(".")[0] in modules:
                tensor.copy_(fresh[name])
    return parameters, f"{count} of {len(blocks)} blocks drawn anew"


def _random_state(patient: Patient, key: str) -> dict[str, torch.Tensor]:
    """Weights of a new model by its own code; by timm's for timm, since the wrapper has one rule for all of them."""
    net: Any = patient.net
    if not is_timm(net):
        return build(patient, net.config, key).state_dict()
    return timm_state(net, patient.seed)


def timm_state(net: Any, seed: int) -> dict[str, torch.Tensor]:
    """Random weights by timm's own code for a TimmWrapper, under its names.

    transformers draws every layer of such a model from one normal distribution (std 0.02), from which a convolutional
    net hardly learns.
    """
    import timm

    arguments = dict(net.config.model_args or {})
    arguments.setdefault("num_classes", net.timm_model.num_classes)
    with quiet(), seeded(seed):
        fresh: nn.Module = timm.create_model(net.config.architecture, pretrained=False, **arguments)
    return {f"timm_model.{name}": tensor for name, tensor in fresh.state_dict().items()}
