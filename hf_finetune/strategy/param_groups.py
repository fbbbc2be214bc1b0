"""AdamW's parameter groups: by rate, and by kind of parameter for weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.model.anatomy import is_norm
from hf_finetune.strategy.adapters import is_scale

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.strategy.apply import Applied

_TOKENS = ("cls_token", "distillation_token", "dist_token", "mask_token", "reg_token", "register_tokens")
_POSITIONS = ("position_embeddings", "pos_embed", "relative_position_bias_table")


def parameter_groups(applied: Applied, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of the parameters that learn in any stage.

    Args:
        applied: model, anatomy and stages.
        lr: the run's rate.
        weight_decay: of weight matrices and convolutions; norms, biases, scales, class tokens and position tables get
            none.

    Returns:
        Groups by rate (by the sequence of rates where there are several stages), head or body, with or without weight
        decay: "name", "params", "lr" (the largest of its rates), "rates" (one a stage, 0 where it is frozen),
        "weight_decay". Every parameter that learns is in exactly one.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    undecayed, learning, head = no_decay(applied.model), applied.learning, applied.names_in("head")
    for name, parameter in applied.model.named_parameters():
        if name not in learning:
            continue
        rates, free = tuple(stage.rate(name, lr) for stage in applied.stages), name in undecayed
        key = (name in head, rates, free)
        if key not in groups:
            rate = " then ".join(f"{rate:g}" for rate in rates)
            groups[key] = {
                "name": f"{'head' if name in head else 'body'} {rate}" + (", no decay" if free else ""),
                "params": [],
                "lr": max(rates),
                "rates": rates,
                "weight_decay": 0.0 if free else weight_decay,
            }
        groups[key]["params"].append(parameter)
    # The rate that is logged is that of the first group: of the body, where it learns from the first stage to the last.
    return [groups[key] for key in sorted(groups, key=lambda key: (key[1].count(0.0), key[0]))]


def no_decay(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay would harm.

    Norms are known by their module's type, not by name: transformers' own rule decays the BatchNorm of a ResNet,
    whose modules are called "normalization".
    """
    found = set()
    for module_name, module in model.named_modules():
        norm = is_norm(module)
        for parameter_name, parameter in module.named_parameters(recurse=False):
            name = f"{module_name}.{parameter_name}" if module_name else parameter_name
            token_or_table = parameter_name.startswith(_TOKENS + _POSITIONS)
            if norm or parameter.ndim <= 1 or parameter_name.endswith("bias") or token_or_table or is_scale(name):
                found.add(name)
    return found
