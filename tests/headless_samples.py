"""Tiny random checkpoints without a classification class of their own, on disk with their processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from model_samples import tokenizer

_BLOCKS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
_VISION = {**_BLOCKS, "image_size": 32, "patch_size": 8}
_TOKENS = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_TEXT = {**_BLOCKS, **_TOKENS, "max_position_embeddings": 40}
_DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2, "decoder_start_token_id": 0, **_TOKENS}

# name -> (class, configuration's class, configuration)
_IMAGE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "clip": ("CLIPModel", "CLIPConfig", {"vision_config": _VISION, "text_config": _TEXT, "projection_dim": 8}),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionConfig", _VISION),
    "siglip": ("SiglipModel", "SiglipConfig", {"vision_config": _VISION, "text_config": _TEXT}),
    "siglip_vision": ("SiglipVisionModel", "SiglipVisionConfig", _VISION),
    "mae": ("ViTMAEForPreTraining", "ViTMAEConfig", {**_VISION, **_DECODER}),
    "mae_encoder": ("ViTMAEModel", "ViTMAEConfig", _VISION),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**_VISION, "num_register_tokens": 2}),
    "dinov3_convnext": (
        "DINOv3ConvNextModel",
        "DINOv3ConvNextConfig",
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1], "image_size": 64},
    ),
}
_SEQUENCE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5),
    "t5_encoder": ("T5EncoderModel", "T5Config", _T5),
    "dpr": ("DPRQuestionEncoder", "DPRConfig", _TEXT),
}
IMAGE_HEADLESS, TEXT_HEADLESS = tuple(_IMAGE), tuple(_SEQUENCE)
HEADLESS = (*IMAGE_HEADLESS, *TEXT_HEADLESS)


def headless(name: str, seed: int = 0) -> Any:
    """A tiny model that gives features and no logits; weights are drawn wide, so that inputs can be told apart."""
    kind, config, settings = {**_IMAGE, **_SEQUENCE}[name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(getattr(transformers, config)(**settings))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model


def save_headless(name: str, folder: Path) -> Path:
    """The model and what prepares its inputs."""
    headless(name).save_pretrained(folder)
    if name in _SEQUENCE:
        text_tokenizer().save_pretrained(folder)
    else:
        side = 64 if name == "dinov3_convnext" else 32
        transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def headless_batch(name: str) -> dict[str, torch.Tensor]:
    """Four inputs with labels 0, 1, 2, 0; of the texts one is padded."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4) % 3
    if name in _SEQUENCE:
        ids = torch.randint(3, 50, (4, 12), generator=generator)
        mask = torch.ones_like(ids)
        ids[1, 8:], mask[1, 8:] = 0, 0
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    side = 64 if name == "dinov3_convnext" else 32
    return {"pixel_values": torch.randn(4, 3, side, side, generator=generator), "labels": labels}


def text_tokenizer(special: str = "[CLS] $A [SEP]") -> transformers.PreTrainedTokenizerFast:
    """The tokenizer of `model_samples`, with special tokens put around a text."""
    from tokenizers.processors import TemplateProcessing

    made = tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=special, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made
