"""What features depend on, as a key: weights of the prefix, preprocessing, data, number formats and versions."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

import hf_finetune
from hf_finetune.data.text_samples import TextSamples
from hf_finetune.evaluation.products import library_in_use
from hf_finetune.model.custom_head import CustomHeadConfig
from hf_finetune.outputs import KEY as RULE

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.model.replay import Border
    from hf_finetune.strategy.prefix import FrozenPrefix

_FORMAT = "3"  # of the entries
_LIBRARIES = ("torch", "transformers", "timm")  # a model's numbers come from these
_OF_IMAGES, _OF_TEXTS = ("torchvision", "pillow"), ("tokenizers",)  # and what goes into it from these
# Of a configuration, what says nothing about the prefix; the Trainer sets `use_cache`.
_OF_THE_HEAD = ("id2label", "label2id", "num_labels", "problem_type", "architectures", "classifier_dropout", RULE)
_OF_TIMM_HEADS = ("label_names", "num_classes")
# Of a head of ours, what may lie before the border: a head alone, around a checkpoint's classifier, has no pooling.
_OF_POOLING = ("pooling", "pool_layer", "prefix_tokens", "channels_last", "norm_layer", "unused")
_OF_THE_FILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "pretrained_cfg", "use_cache")


def digest_of_prefix(model: nn.Module, prefix: FrozenPrefix) -> str:
    """Checksum of the prefix's weights and statistics in order, and of the configuration; of another head the same."""
    digest = hashlib.sha256()
    learned = set(prefix.tensors)
    around = tuple(f"{name}." for name in prefix.modules)
    tensors: list[torch.Tensor] = [tensor for name, tensor in model.named_parameters() if name in learned]
    tensors += [tensor for name, tensor in model.named_buffers() if name.startswith(around)]
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(settings_of(model).encode())
    return digest.hexdigest()


def settings_of(model: nn.Module) -> str:
    """The model's configuration without what is the head's, or its files'."""
    config: Any = model.config
    custom = isinstance(config, CustomHeadConfig)
    settings: Any = config.base if custom else config.to_dict()
    left_out = (*_OF_THE_HEAD, *_OF_TIMM_HEADS, *_OF_THE_FILE)
    kept = {name: value for name, value in settings.items() if name not in left_out}
    if custom and config.pooling is not None:
        kept["task_pooling"] = {name: getattr(config, name) for name in _OF_POOLING}
    return json.dumps(kept, sort_keys=True, default=str)


def place_of(model: nn.Module, border: Border) -> tuple[Any, ...]:
    """What is kept, in the checkpoint's own names: a custom head stands around the checkpoint and changes nothing."""
    config: Any = model.config
    name = border.name.removeprefix("model.") if isinstance(config, CustomHeadConfig) else border.name
    return name, border.place, tuple(border.shape.sizes), str(border.shape.dtype)


def number_facts(device: torch.device, channels_last: bool, attention: str = "fused") -> dict[str, Any]:
    """Beside the number format itself, what the last bits of a pass depend on.

    Args:
        device: where it runs.
        channels_last: how images and convolutions lie in memory.
        attention: from `attention_in_use`.
    """
    return {
        "device": device.type,
        "fp32 products": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, library_in_use()),
        "attention": attention,
        "channels last": channels_last,
    }


def key_of(
    prefix: str,
    place: tuple[Any, ...],
    samples: Any,
    processor: Any,
    data: str,
    *,
    precision: str,
    dtype: str,
    numbers: dict[str, Any],
    change: str,
) -> str:
    """The key of one split's features.

    Args:
        prefix: from `digest_of_prefix`.
        place: from `place_of`.
        samples: the real samples; of texts, the tokens count.
        processor: of images.
        data: checksum of the split's content.
        precision: in which the prefix runs.
        dtype: in which the features are kept.
        numbers: from `number_facts`.
        change: how images are changed at random, and which view; "" for not at all.
    """
    is_text = isinstance(samples, TextSamples)
    libraries = (*_LIBRARIES, *(_OF_TEXTS if is_text else _OF_IMAGES))
    versions = (_FORMAT, hf_finetune.__version__, *(f"{name} {version(name)}" for name in libraries))
    facts = (versions, prefix, place, data, precision, dtype, sorted(numbers.items()), change)
    digest = hashlib.sha256(repr(facts).encode())
    if is_text:
        for part in (samples.tokens.ids, samples.tokens.windows, samples.tokens.types):
            if part is not None:
                digest.update(part.tobytes())
    else:
        digest.update(f"{type(processor).__name__} {processor.to_dict()}".encode())
    return digest.hexdigest()[:32]
