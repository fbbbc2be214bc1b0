"""Tiny random models of every supported family, and batches they take. Nothing is downloaded.

`tiny("bert")` is a classification model with `NUM_LABELS` labels in train mode; `batch("bert")` is a dictionary of
inputs for it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

NUM_LABELS = 3
_TOKENS = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
_VIT = {**_BERT, "image_size": 32, "patch_size": 8}
_TEXT = {"max_position_embeddings": 40, **_TOKENS}

# family -> (class name without "Config"/"For...", configuration)
_IMAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", _VIT),
    "deit": ("DeiT", _VIT),
    "beit": ("Beit", {**_VIT, "use_relative_position_bias": True, "use_mask_token": False, "out_indices": None}),
    "dinov2": ("Dinov2", {**_VIT, "mlp_ratio": 2}),
    "swin": (
        "Swin",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
    ),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1], "patch_size": 2}),
    "resnet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1], "layer_type": "basic"},
    ),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 32, "depth_multiplier": 0.25, "tf_padding": False}),
    "efficientnet": (
        "EfficientNet",
        {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320},
    ),
}
_TIMM: dict[str, tuple[str, dict[str, Any], int]] = {
    "timm_vit": (
        "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2},
        32,
    ),
    "timm_resnet": ("resnet18", {"channels": [8, 8, 16, 16]}, 32),
    "timm_vgg": ("vgg11_bn", {"mlp_ratio": 0.01}, 32),
    "timm_densenet": ("densenet121", {"growth_rate": 4, "block_config": [2, 2, 2, 2]}, 32),
    "timm_inception_v3": ("inception_v3", {"aux_logits": False}, 96),
    "timm_xception": ("legacy_xception", {}, 64),
    "timm_mobilenetv3": ("mobilenetv3_small_050", {}, 32),
    "timm_efficientnet": ("tf_efficientnet_lite0", {}, 32),
}
_SEQUENCE: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {**_BERT, **_TEXT}),
    "distilbert": ("DistilBert", {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, **_TEXT}),
    "roberta": ("Roberta", {**_BERT, **_TEXT}),
    "albert": ("Albert", {**_BERT, **_TEXT, "embedding_size": 8}),
    "electra": ("Electra", {**_BERT, **_TEXT, "embedding_size": 8}),
    "xlnet": ("XLNet", {"d_model": 16, "n_layer": 3, "n_head": 2, "d_inner": 32, **_TOKENS}),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 40, **_TOKENS}),
    "modernbert": (
        "ModernBert",
        {**_BERT, **_TEXT, "cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 2, "local_attention": 8},
    ),
}

IMAGE_FAMILIES = (*_IMAGE, *_TIMM)
TEXT_FAMILIES = tuple(_SEQUENCE)
FAMILIES = (*IMAGE_FAMILIES, *TEXT_FAMILIES)
TIMM_FAMILIES = tuple(_TIMM)
# Of each kind one, where the others differ in the names of their layers alone.
CORE = ("vit", "resnet", "mobilenet_v2", "timm_vit", "timm_resnet", "bert", "gpt2", "xlnet")
# Four to twenty million weights: timm builds these in one size.
LARGE = ("timm_vgg", "timm_inception_v3", "timm_xception", "timm_efficientnet")


def sweep(families: Iterable[str] = FAMILIES, core: Collection[str] | None = None) -> list[Any]:
    """For `parametrize`: all the families; plain pytest takes the core (else all but the large), `slow` the rest."""
    plain = set(FAMILIES) - set(LARGE) if core is None else core
    return [family if family in plain else pytest.param(family, marks=pytest.mark.slow) for family in families]


def tiny_config(family: str, num_labels: int = NUM_LABELS, **changes: Any) -> PretrainedConfig:
    """The configuration of `tiny(family)`."""
    if family in _TIMM:
        architecture, model_args, size = _TIMM[family]
        pretrained_cfg = {
            "input_size": [3, size, size],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "num_classes": num_labels,
        }
        return transformers.TimmWrapperConfig(
            architecture=architecture,
            model_args=dict(model_args) or None,
            num_labels=num_labels,
            pretrained_cfg=pretrained_cfg,
            **changes,
        )
    name, settings = (_IMAGE | _SEQUENCE)[family]
    return getattr(transformers, f"{name}Config")(**{**settings, "num_labels": num_labels, **changes})


def model_class(family: str) -> type[PreTrainedModel]:
    """The transformers class of a family."""
    if family in _TIMM:
        return transformers.TimmWrapperForImageClassification
    name = (_IMAGE | _SEQUENCE)[family][0]
    return getattr(
        transformers, f"{name}ForImageClassification" if family in _IMAGE else f"{name}ForSequenceClassification"
    )


def tiny(family: str, num_labels: int = NUM_LABELS, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A small random classification model of `family`, the same every time."""
    if changes:
        return _made(family, num_labels, seed, **changes)
    return copy.deepcopy(_kept(family, num_labels, seed))


@lru_cache(maxsize=16)
def _kept(family: str, num_labels: int, seed: int) -> PreTrainedModel:
    """To draw a model's weights takes longer than to copy them."""
    return _made(family, num_labels, seed)


def _made(family: str, num_labels: int, seed: int, **changes: Any) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(family)(tiny_config(family, num_labels, **changes)).train()
        if any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
            for _ in range(3):  # else a random net in eval mode gives nearly the same answer for every image
                model(pixel_values=torch.randn(8, 3, image_size(family), image_size(family)))
    return model


def image_size(family: str) -> int:
    """Side of the images that `family`'s tiny model takes, in pixels."""
    return _TIMM[family][2] if family in _TIMM else 32


def batch(family: str, size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs and labels for `tiny(family)`: `pixel_values` (size, 3, S, S), or token ids and mask (size, 12)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % NUM_LABELS
    if family in _SEQUENCE:
        ids = torch.randint(3, 50, (size, 12), generator=generator)
        mask = torch.ones_like(ids)
        ids[1, 8:], mask[1, 8:] = 0, 0
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    side = image_size(family)
    return {"pixel_values": torch.randn(size, 3, side, side, generator=generator), "labels": labels}


def save_checkpoint(family: str, folder: Path, num_labels: int = 5, **changes: Any) -> Path:
    """A tiny pretrained checkpoint on disk: weights, config, and image processor or tokenizer."""
    model = tiny(family, num_labels, seed=7, **changes)
    model.save_pretrained(folder)
    if family in _SEQUENCE:
        tokenizer().save_pretrained(folder)
    elif family not in _TIMM:
        side = image_size(family)
        transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Splits at blanks; knows the words w3 to w49."""
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2} | {f"w{index}": index for index in range(3, 50)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[SEP]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", eos_token="[SEP]"
    )
