"""Tiny finished models, and inputs for them; made from configurations, nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

WORDS = ["good", "bad", "film", "plot", "the", "a", "very", "not", "great", "awful"]
_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def _labels(names, problem):
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
        "problem_type": problem,
    }


def image_model(names=("ant", "bee", "cat"), problem="single_label_classification"):
    """A random ViT for 16-pixel images, with its processor."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **_SMALL, **_labels(names, problem)))
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    return model.eval(), ViTImageProcessor(size={"height": 16, "width": 16})


def text_model(names=("no", "yes"), problem="single_label_classification"):
    """A random BERT over ten words, with its tokenizer."""
    torch.manual_seed(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: place for place, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=32,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **_SMALL, **_labels(names, problem))
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.eval(), fast


def save_model(folder: Path, made) -> Path:
    """`made` as a plain transformers folder."""
    model, processor = made
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def images(count: int, seed: int = 0) -> list[Image.Image]:
    """Random images of varying size."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (12 + i % 5, 20, 3), dtype=np.uint8)) for i in range(count)]


def texts(count: int, seed: int = 0) -> list[str]:
    """Random sentences of varying length."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=1 + i % 7)) for i in range(count)]
