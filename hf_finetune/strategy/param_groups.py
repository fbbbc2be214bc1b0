"""AdamW's parameter groups: by part for the rate, by kind of parameter for weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.model.anatomy import is_norm

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.strategy.apply import Applied

_TOKENS = ("cls_token", "distillation_token", "dist_token", "mask_token", "reg_token", "register_tokens")
_POSITIONS = ("position_embeddings", "pos_embed", "relative_position_bias_table")


def parameter_groups(applied: Applied, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of the parameters that learn.

    Args:
        applied: model, anatomy and the head's multiplier.
        lr: rate of the body.
        weight_decay: of weight matrices and convolutions; norms, biases, scales, class tokens and position tables get
            none.

    Returns:
        Up to four groups, "body", "body, no decay", "head", "head, no decay", each with "params", "lr",
        "weight_decay"; every parameter that learns is in exactly one.
    """
    groups: dict[str, dict[str, Any]] = {}
    undecayed = no_decay(applied.model)
    for name, parameter in applied.model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_head = applied.part_name(name) == "head"
        free = name in undecayed
        key = ("head" if in_head else "body") + (", no decay" if free else "")
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "lr": lr * (applied.head_multiplier if in_head else 1.0),
                "weight_decay": 0.0 if free else weight_decay,
            },
        )
        group["params"].append(parameter)
    order = ("body", "body, no decay", "head", "head, no decay")
    return [groups[key] for key in order if key in groups]


def no_decay(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay would harm.

    Norms are known by their module's type, not by name: transformers' own rule decays the BatchNorm of a ResNet,
    whose modules are called "normalization".
    """
    found = set()
    for module_name, module in model.named_modules():
        norm = is_norm(module)
        for parameter_name, parameter in module.named_parameters(recurse=False):
            token_or_table = parameter_name.startswith(_TOKENS + _POSITIONS)
            if norm or parameter.ndim <= 1 or parameter_name.endswith("bias") or token_or_table:
                found.add(f"{module_name}.{parameter_name}" if module_name else parameter_name)
    return found
