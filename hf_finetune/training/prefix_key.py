"""What features depend on, as a key: weights of the prefix, preprocessing, data, number formats and versions."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

import hf_finetune
from hf_finetune.data.text_samples import TextSamples
from hf_finetune.model.custom_head import CustomHeadConfig

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.model.replay import Border
    from hf_finetune.strategy.prefix import FrozenPrefix

_FORMAT = "1"  # of the entries
# Of a configuration, what says nothing about the prefix; the Trainer sets `use_cache`.
_OF_THE_HEAD = ("id2label", "label2id", "num_labels", "problem_type", "architectures", "classifier_dropout")
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
    settings: Any = config.base if isinstance(config, CustomHeadConfig) else config.to_dict()
    kept = {name: value for name, value in settings.items() if name not in (*_OF_THE_HEAD, *_OF_THE_FILE)}
    return json.dumps(kept, sort_keys=True, default=str)


def key_of(
    prefix: str, border: Border, samples: Any, processor: Any, data: str, *, precision: str, dtype: str, change: str
) -> str:
    """The key of one split's features.

    Args:
        prefix: from `digest_of_prefix`.
        border: what is kept.
        samples: the real samples; of texts, the tokens count.
        processor: of images.
        data: fingerprint of the split.
        precision: in which the prefix runs.
        dtype: in which the features are kept.
        change: how images are changed at random, and which view; "" for not at all.
    """
    sizes = tuple(border.shape.sizes)
    versions = (_FORMAT, hf_finetune.__version__, torch.__version__)
    digest = hashlib.sha256(repr((versions, prefix, sizes, data, precision, dtype, change)).encode())
    if isinstance(samples, TextSamples):
        for part in (samples.tokens.ids, samples.tokens.windows, samples.tokens.types):
            if part is not None:
                digest.update(part.tobytes())
    else:
        digest.update(f"{type(processor).__name__} {processor.to_dict()}".encode())
    return digest.hexdigest()[:32]
