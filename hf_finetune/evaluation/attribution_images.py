"""Where in an image a model looked: attention followed through the layers, or Grad-CAM. See `attribution`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_finetune.data import collate_images, normalized
from hf_finetune.evaluation.attribution import Attributions, Deadline, NotPossible, at_rest, goal, in_batches

_MOST_PREFIX = 8  # class, distillation and register tokens before those of the patches
_NOTHING = "No overlays: nowhere in the last feature map is there anything that speaks for the answers."
_NO_MAP = (
    "No overlays: this architecture gives neither attentions nor a feature map with two spatial dimensions, so there "
    "is nothing to lay over an image."
)


def explain_images(
    model: nn.Module,
    samples: Sequence[dict[str, torch.Tensor]],
    answers: Sequence[int],
    outputs: slice = slice(None),
    *,
    single: bool = True,
    seconds: float = 60.0,
) -> Attributions:
    """Maps of what mattered.

    Args:
        model: a classification model of transformers or timm's in its wrapper; left as it was.
        samples: as `image_samples` gives them, without labels.
        answers: for each sample the output to explain.
        outputs: those of the task.
        single: see `attribution.goal`.
        seconds: after these no further layer is computed.
    """
    result = Attributions()
    device = next(model.parameters()).device
    with at_rest(model), _attentions_given(model) as gives:

        def explain(rows: range) -> None:
            batch = collate_images([samples[row] for row in rows])
            inputs = normalized({name: tensor.to(device) for name, tensor in batch.items()})
            maps, result.method = _maps(model, inputs, [answers[row] for row in rows], outputs, single, gives)
            result.found |= {row: one for row, one in zip(rows, maps, strict=True) if one is not None}

        result.skipped = in_batches(model, len(samples), Deadline(seconds), explain)
    if samples and not result.found:
        result.method, result.skipped = "", result.skipped or _NOTHING
    return result


@contextmanager
def _attentions_given(model: nn.Module) -> Iterator[bool]:
    """The attention that keeps its weights, for a while; whether the model has such."""
    config: Any = getattr(model, "config", None)
    before = getattr(config, "_attn_implementation", None)
    change: Any = getattr(model, "set_attn_implementation", None)
    given = False
    if change is not None and before is not None and getattr(config, "model_type", "") != "timm_wrapper":
        with suppress(Exception):  # an architecture without a choice of implementations
            change("eager")
            given = True
    try:
        yield given
    finally:
        if given and before != "eager":
            try:
                change(before)
            except ValueError:  # a config may name one that its model cannot be asked for
                config._attn_implementation = before


def _maps(
    model: nn.Module, inputs: dict[str, Any], answers: list[int], outputs: slice, single: bool, gives: bool
) -> tuple[list[np.ndarray | None], str]:
    size = inputs["pixel_values"].shape[-2:]
    inputs = inputs | {"pixel_values": inputs["pixel_values"].detach().requires_grad_()}
    if gives:
        output = None
        with suppress(TypeError, ValueError):  # models whose forward knows no attentions
            output = model(**inputs, output_attentions=True)
        attentions = _square(getattr(output, "attentions", None), len(answers))
        if output is not None and attentions and _grid(attentions[0].shape[-1], size) is not None:
            wanted = goal(output.logits, outputs, answers, single)
            gradients = torch.autograd.grad(wanted, attentions, allow_unused=True)
            return _rollout(attentions, gradients, size), "attention followed through the layers, weighted by gradients"
    return _grad_cam(model, inputs, answers, outputs, single, size), "Grad-CAM on the last feature map"


def _square(attentions: Any, batch: int) -> list[torch.Tensor]:
    """Attentions (B, heads, N, N) of all layers, N being the same; nothing where they are not such (windows)."""
    found = [layer for layer in attentions or () if isinstance(layer, torch.Tensor) and layer.ndim == 4]
    shapes = {layer.shape[-2:] for layer in found}
    square = len(shapes) == 1 and all(height == width for height, width in shapes)
    square = square and all(len(layer) == batch for layer in found)  # of windows there are more than images
    return found if square and all(layer.requires_grad for layer in found) else []


def _rollout(
    attentions: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None], size: torch.Size
) -> list[np.ndarray | None]:
    tokens = attentions[0].shape[-1]
    one = torch.eye(tokens, device=attentions[0].device)
    relevance = one.expand(len(attentions[0]), tokens, tokens)
    for attention, gradient in zip(attentions, gradients, strict=True):
        if gradient is not None:
            layer = (attention.detach() * gradient).clamp(min=0).float().mean(dim=1)
            relevance = relevance + layer @ relevance
    grid = _grid(tokens, size)
    assert grid is not None
    height, width, prefix = grid
    # What is read is the class token where there is one, else the mean over the patches.
    read = relevance[:, 0] if prefix else (relevance - one).mean(dim=1)
    return [_scaled(row.reshape(height, width).cpu().numpy()) for row in read[:, prefix:]]


def _grid(tokens: int, size: Sequence[int]) -> tuple[int, int, int] | None:
    """Rows and columns of the patches among `tokens`, and how many other tokens stand before them."""
    for prefix in range(min(_MOST_PREFIX, tokens - 1) + 1):
        patches = tokens - prefix
        height = max(1, round(math.sqrt(patches * size[0] / size[1])))
        width = patches // height
        alike = abs(height / width - size[0] / size[1]) < 0.2 * size[0] / size[1] if width else False
        if height * width == patches and patches >= 4 and alike:
            return height, width, prefix
    return None


def _grad_cam(
    model: nn.Module, inputs: dict[str, Any], answers: list[int], outputs: slice, single: bool, size: torch.Size
) -> list[np.ndarray | None]:
    last: list[torch.Tensor] = []
    channels_last: list[bool] = []

    def look(module: nn.Module, given: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) and output else output
        tensor = getattr(tensor, "last_hidden_state", tensor)
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad and _is_spatial(tensor, size, len(answers)):
            last[:], channels_last[:] = [tensor], [isinstance(module, nn.LayerNorm)]

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        logits = model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise NotPossible(_NO_MAP)
    features = last[0]
    gradient = torch.autograd.grad(goal(logits, outputs, answers, single), features, allow_unused=True)[0]
    if gradient is None:
        raise NotPossible(_NO_MAP)
    features, gradient = (_channels_first(tensor, size, channels_last[0]) for tensor in (features.detach(), gradient))
    heat = (features * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1).clamp(min=0).float().cpu().numpy()
    return [_scaled(one) for one in heat]


def _is_spatial(tensor: torch.Tensor, size: Sequence[int], batch: int) -> bool:
    if tensor.shape[0] != batch:
        return False
    if tensor.ndim == 3:
        return _grid(tensor.shape[1], size) is not None
    return tensor.ndim == 4 and min(tensor.shape[2:]) > 1 and tensor.shape[1] > 1


def _channels_first(tensor: torch.Tensor, size: Sequence[int], last: bool) -> torch.Tensor:
    """(B, N, C) of tokens, or (B, H, W, C) behind a LayerNorm, as (B, C, H, W)."""
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2) if last else tensor
    grid = _grid(tensor.shape[1], size)
    assert grid is not None
    height, width, prefix = grid
    return tensor[:, prefix:].transpose(1, 2).reshape(len(tensor), -1, height, width)


def _scaled(heat: np.ndarray) -> np.ndarray | None:
    """From 0 to 1; None where nothing mattered more than anything else. The few largest do not hide the rest."""
    low, high = float(heat.min()), float(np.percentile(heat, 99))
    if not np.isfinite(high) or high - low <= 1e-12:
        return None
    return np.clip((heat - low) / (high - low), 0, 1).astype(np.float32)
