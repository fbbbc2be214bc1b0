"""`model.in_channels`: images of other than 3 channels, with the pretrained filters of the stem."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch

from hf_finetune.errors import UserError
from hf_finetune.model.surgery.rebuild import Patient, is_timm, rebuild, timm_accepts, timm_config

StemWeights = Literal["repeat", "mean", "sum"]
_COLOURS = 3


def set_channels(patient: Patient, processor: Any, channels: int, rule: StemWeights) -> tuple[Patient, Any, str | None]:
    """A stem for images of `channels` channels, and the processor that goes with it.

    Args:
        patient: the model.
        processor: its image processor; changed in place, or replaced (timm).
        channels: how many.
        rule: see `stem_filters`.

    Returns:
        model, processor, and what was changed in words (None: nothing).

    Raises:
        UserError: the family's stem is for 3 channels alone, or the checkpoint's is for neither 3 nor as many.
    """
    key = f"model.in_channels={channels}"
    net = patient.net
    before = channels_of(net)
    if before == channels:
        return patient, processor, None
    config = _config(patient, channels, before, key)

    def resize(name: str, old: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
        stem = old.ndim == 4 and old.shape[0] == shape[0] and old.shape[2:] == shape[2:]
        if not stem or (old.shape[1], shape[1]) != (_COLOURS, channels):
            return None
        return stem_filters(old, channels, rule)

    changed = rebuild(patient, config, key, resize=resize)
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    if all(tensor.shape == shapes[name] for name, tensor in changed.net.state_dict().items()):
        raise UserError(f"{key}: the stem of {patient.kind} takes {before} channels whatever its configuration says.")
    how = "random filters" if patient.scratch else f"filters by {rule}"
    return changed, _processor(processor, config, channels), f"stem for {channels} channels ({how})"


def stem_filters(weight: torch.Tensor, channels: int, rule: StemWeights) -> torch.Tensor:
    """Filters for any number of channels from those for red, green and blue.

    - repeat: channel c takes the filter of colour c mod 3 over the number of channels that take the same. An input
      whose channels repeat red, green and blue in turn gives exactly what the coloured image gave. (timm's
      `adapt_input_conv` divides by channels / 3 instead, which differs where that is not whole.) Fewer than 3
      channels have no colours to repeat: each takes the mean, below.
    - mean: every channel takes the mean of the three, times 3 / channels: an input of equal channels gives what the
      grey image gave.
    - sum: every channel takes the sum of the three, unscaled: each gives by itself what it gave as a grey image, and
      the answers add up. For one channel the same as mean; for more, right where at most one is not 0 at a place.

    Args:
        weight: (out, 3, height, width).
        channels: C.
        rule: which.

    Returns:
        (out, C, height, width).
    """
    total = weight.sum(dim=1, keepdim=True)
    if rule == "sum":
        return total.repeat(1, channels, 1, 1)
    if rule == "mean" or channels < _COLOURS:
        return total.repeat(1, channels, 1, 1) / channels
    colours = torch.arange(channels) % _COLOURS
    shared = torch.bincount(colours)[colours]
    return weight[:, colours] / shared.view(1, -1, 1, 1)


def channels_of(net: Any) -> int | None:
    """Channels of the images that a model takes; None where its configuration does not say."""
    if is_timm(net):
        arguments = net.config.model_args or {}
        size = (getattr(net.config, "pretrained_cfg", None) or {}).get("input_size") or (_COLOURS,)
        return int(arguments.get("in_chans", size[0]))
    channels = getattr(net.config, "num_channels", None)
    return channels if isinstance(channels, int) else None


def _config(patient: Patient, channels: int, before: int | None, key: str) -> Any:
    net = patient.net
    if before is None or (is_timm(net) and not timm_accepts(net, "in_chans")):
        raise UserError(f"{key}: {patient.kind} takes 3 channels, by its code. Use another checkpoint.")
    if before != _COLOURS and not patient.scratch:
        raise UserError(
            f"{key}: the stem of {patient.checkpoint} has {before} channels. Filters can be made for as many, or from "
            "a checkpoint with 3."
        )
    if not is_timm(net):
        config = copy.deepcopy(net.config)
        config.num_channels = channels
        return config
    config = timm_config(net, in_chans=channels)
    given = getattr(config, "pretrained_cfg", None) or {}
    sizes = {name: [channels, *given[name][1:]] for name in ("input_size", "test_input_size") if given.get(name)}
    moments = {name: for_channels(given[name], channels) for name in ("mean", "std") if given.get(name)}
    config.pretrained_cfg = {**given, **sizes, **moments}
    return config


def for_channels(values: Sequence[float], channels: int) -> list[float]:
    """A mean or deviation for every channel: those given for three stay, all others take their average."""
    average = sum(values) / len(values)
    kept = list(values) if channels >= len(values) else []
    return [float(value) for value in kept] + [average] * (channels - len(kept))


def _processor(processor: Any, config: Any, channels: int) -> Any:
    """The processor with means and deviations for so many channels."""
    if hasattr(processor, "data_config"):  # timm's: made from the configuration, which also saves it
        return type(processor)(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)
    for name in ("image_mean", "image_std"):
        values = getattr(processor, name, None)
        if values is not None:
            values = values if isinstance(values, Sequence) else [values]
            setattr(processor, name, for_channels(values, channels))
    if getattr(processor, "do_convert_rgb", None):
        processor.do_convert_rgb = False
    return processor
