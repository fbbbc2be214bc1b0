"""`model.image_size`: images of another size, with position embeddings resized."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import torch

from hf_finetune.errors import UserError
from hf_finetune.model.quiet import quiet
from hf_finetune.model.surgery.channels import channels_of
from hf_finetune.model.surgery.processor_size import resize_processor, size_of_processor
from hf_finetune.model.surgery.rebuild import Patient, is_timm, rebuild, timm_accepts, timm_config

_POSITIONS = re.compile(r"pos(ition)?_embed")  # position_embeddings, pos_embed, position_embedding.weight
_BIASES = "relative_position_bias_table"


def set_image_size(patient: Patient, processor: Any, size: int) -> tuple[Patient, Any, str | None]:
    """A model for square images of another size, and the processor that makes them.

    Position embeddings and tables of relative positions are resized bicubically (Touvron et al. 2019,
    arXiv:1906.06423, on why another size helps; Dosovitskiy et al. 2020, arXiv:2010.11929, on positions). Convolutional
    nets keep their weights.

    Args:
        patient: the model.
        processor: its image processor; changed in place, or replaced (timm).
        size: side in pixels.

    Returns:
        model, processor, and what was changed in words (None: nothing).

    Raises:
        UserError: patches do not fill images of that size, or the family cannot take it.
    """
    key = f"model.image_size={size}"
    before = _size_of(patient.net)
    processed = size_of_processor(processor)
    if before in (None, (size, size)) and processed == (size, size):
        return patient, processor, None
    tables: list[str] = []

    def resize(name: str, old: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
        tables.append(name)
        return _resized(name, old, shape, _grid(patient.net, before), _grid(patient.net, (size, size)))

    if before != (size, size):
        _check_patches(patient, size, key)
        patient = rebuild(patient, _config(patient.net, size), key, resize=resize)
    processor = resize_processor(processor, patient.net.config, size, key)
    _check_forward(patient, size, key)
    was = "x".join(map(str, before or processed or ())) or "any"
    positions = ", positions resized" if tables and not patient.scratch else ""
    return patient, processor, f"image size {was} -> {size}x{size}{positions}"


def _size_of(net: Any) -> tuple[int, int] | None:
    """Height and width of the images that the model was built for; None where it takes any and does not say."""
    if is_timm(net):
        size = (net.config.model_args or {}).get("img_size")
        size = size or ((getattr(net.config, "pretrained_cfg", None) or {}).get("input_size") or [None])[1:]
    else:
        size = getattr(net.config, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) and len(size) == 2 else None


def _config(net: Any, size: int) -> Any:
    if not is_timm(net):
        config = copy.deepcopy(net.config)
        if hasattr(config, "image_size"):
            config.image_size = size
        return config
    config = timm_config(net, **({"img_size": size} if timm_accepts(net, "img_size") else {}))
    given = getattr(config, "pretrained_cfg", None) or {}
    sizes = [name for name in ("input_size", "test_input_size") if given.get(name)] or ["input_size"]
    config.pretrained_cfg = {**given, **{name: [channels_of(net), size, size] for name in sizes}}
    return config


def _patch(net: Any) -> int | None:
    """Side of a patch, where tokens stand on a grid of patches."""
    if not any(_POSITIONS.search(name) for name, _ in net.named_parameters()):
        return None
    if is_timm(net):
        patch = getattr(getattr(net.timm_model, "patch_embed", None), "patch_size", None)
    else:
        patch = getattr(net.config, "patch_size", None)
    return int(patch[0]) if isinstance(patch, list | tuple) else patch


def _check_patches(patient: Patient, size: int, key: str) -> None:
    patch = _patch(patient.net)
    if patch and size % patch:
        near = sorted({max(patch, size // patch * patch), -(-size // patch) * patch})
        raise UserError(
            f"{key}: {patient.checkpoint} cuts images into patches of {patch} x {patch}, which must fill them. Give a "
            f"multiple of {patch}, such as {' or '.join(map(str, near))}."
        )


def _grid(net: Any, size: tuple[int, int] | None) -> tuple[int, int] | None:
    patch = _patch(net)
    return (size[0] // patch, size[1] // patch) if patch and size else None


def _resized(
    name: str, old: torch.Tensor, shape: torch.Size, before: tuple[int, int] | None, after: tuple[int, int] | None
) -> torch.Tensor | None:
    """A table of positions for another grid, by timm's functions: bicubic, what is not on the grid left alone."""
    from timm.layers import resample_abs_pos_embed
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple

    if name.endswith(_BIASES):
        window = math.isqrt(shape[0])  # 2 w - 1 squared, and perhaps 3 for the class token
        window = (window + 1) // 2
        return resize_rel_pos_bias_table_simple(old, (window, window), tuple(shape))
    if not _POSITIONS.search(name) or before is None or after is None:
        return None
    table = old.unsqueeze(0) if old.ndim == 2 else old
    prefix = table.shape[1] - before[0] * before[1]  # class and register tokens
    if prefix < 0:
        return None
    table = resample_abs_pos_embed(table, list(after), list(before), num_prefix_tokens=prefix)
    table = table.reshape(-1, table.shape[-1]) if old.ndim == 2 else table
    return table if table.shape == shape else None


def _check_forward(patient: Patient, size: int, key: str) -> None:
    """One empty image through the model: some nets are built for one size alone, and would stop in the first step."""
    net: Any = patient.net
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.no_grad(), quiet():
            net.eval()(pixel_values=torch.zeros(1, channels_of(net) or 3, size, size))
    except Exception as fault:
        raise UserError(
            f"{key}: {patient.kind} of {patient.checkpoint} does not take images of that size ({fault})."
        ) from fault
    finally:
        for module, mode in modes.items():
            module.training = mode
