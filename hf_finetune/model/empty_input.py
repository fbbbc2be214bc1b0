"""A model run once on an empty input: what it needs, and whether its parts run in the order that was read from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hf_finetune.errors import UserError
from hf_finetune.model.custom_head import CustomHeadConfig


def check_forward_order(model: Any, parts: Sequence[Sequence[str]]) -> None:
    """Runs the model once on an empty input and checks that the parts are entered in the given order.

    Args:
        model: a model whose layout no test of ours holds.
        parts: names of the modules of each part, in the order to be confirmed.

    Raises:
        UserError: the forward pass could not be run, or it runs through the parts in another order.
    """
    order: list[int] = []
    hooks = []
    for index, names in enumerate(parts):
        for name in names:
            module = model.get_submodule(name)
            if next(module.parameters(recurse=False), None) is not None:
                hooks.append(module.register_forward_pre_hook(lambda *_, index=index: order.append(index)))
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(**empty_input(model))
    except Exception as fault:
        raise UserError(
            f"The architecture {type(model).__name__} is unknown to hf_finetune, and the order of its blocks could "
            "not be checked "
            f"by running it on an empty input: {fault}"
        ) from fault
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    first = list(dict.fromkeys(order))
    if first != sorted(first):
        raise UserError(
            f"The architecture {type(model).__name__} is unknown to hf_finetune, and its blocks do not run in the "
            "order in which "
            "they are listed, so they cannot be frozen from the stem upwards. Use another checkpoint."
        )


def empty_input(model: Any) -> dict[str, torch.Tensor]:
    """One black image or a text of four tokens, as the model takes them."""
    if isinstance(model.config, CustomHeadConfig):
        return empty_input(model.model)
    device = next(model.parameters()).device
    if model.main_input_name == "pixel_values":
        timm_size = (getattr(model.config, "pretrained_cfg", None) or {}).get("input_size")
        config = getattr(model.config, "vision_config", model.config)
        size = getattr(config, "image_size", None) or (timm_size[-1] if timm_size else 224)
        height, width = size if isinstance(size, tuple | list) else (size, size)
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), height, width, device=device)}
    return {"input_ids": torch.ones(1, 4, dtype=torch.long, device=device)}
