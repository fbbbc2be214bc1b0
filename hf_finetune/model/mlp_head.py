"""Classifiers with a multilayer perceptron as head, in a form that loads without hf_finetune.

This file stands alone: `save_pretrained` copies it beside the weights, and `pipeline(task, model=folder,
trust_remote_code=True)` reads it from there. Without that flag transformers refuses the folder, rather than load the
backbone with a random linear head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
)

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MlpHeadConfig(PretrainedConfig):
    """Configuration of a classifier with an mlp head.

    Args:
        base: configuration of the classification model whose output layer is replaced, as a dictionary with
            "model_type".
        output_layer: name of the replaced layer in that model.
        in_features: width of what the head receives.
        hidden: widths of the hidden layers, in order.
        activation: "relu", "gelu", "silu" or "tanh".
        dropout: dropout after each hidden layer's activation.
    """

    model_type = "hf_finetune_mlp_head"

    def __init__(
        self,
        base: dict[str, Any] | None = None,
        output_layer: str = "classifier",
        in_features: int = 1,
        hidden: Sequence[int] = (512,),
        activation: str = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if base is not None and "pretrained_cfg" in base:
            # AutoImageProcessor takes a timm model's preprocessing from these.
            kwargs["pretrained_cfg"] = base["pretrained_cfg"]
            kwargs["image_processor_type"] = "TimmWrapperImageProcessor"
        self.base = base
        self.output_layer = output_layer
        self.in_features = in_features
        self.hidden = list(hidden)
        self.activation = activation
        self.dropout = dropout
        super().__init__(**kwargs)

    def base_config(self) -> PretrainedConfig:
        """The configuration of the model around the head, with this one's labels, as an object."""
        settings = dict(self.base or {})
        model_type = settings.pop("model_type")
        if model_type == "timm_wrapper":
            config = TimmWrapperConfig.from_dict(settings)
        else:
            config = AutoConfig.for_model(model_type, **settings)
        config.id2label, config.label2id, config.problem_type = self.id2label, self.label2id, self.problem_type
        return config


class MlpHead(nn.Module):
    """Hidden layers, each with activation and dropout, and an output layer: (..., in) to (..., out)."""

    def __init__(
        self, in_features: int, hidden: Sequence[int], out_features: int, activation: str = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        layers: list[nn.Module] = []
        width = in_features
        for hidden_width in hidden:
            layers += [nn.Linear(width, hidden_width), _ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = hidden_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (..., out_features) of pooled features (..., in_features)."""
        return self.layers(features)

    @torch.no_grad()
    def initialize(self) -> None:
        """He et al. 2015 (arXiv:1502.01852) for hidden layers, a small normal for the output layer, zero biases."""
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in linears[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(linears[-1].weight, std=0.02)
        nn.init.zeros_(linears[-1].bias)


class _MlpHeadModel(PreTrainedModel):
    """A classification model whose output layer is an `MlpHead`."""

    config_class = MlpHeadConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _auto_model: Any = None

    def __init__(self, config: MlpHeadConfig) -> None:
        super().__init__(config)
        self.model = self._auto_model.from_config(config.base_config())
        head = MlpHead(config.in_features, config.hidden, config.num_labels, config.activation, config.dropout)
        self.model.set_submodule(config.output_layer, head)
        self.main_input_name = self.model.main_input_name
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, MlpHead):
            module.initialize()

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()


class MlpHeadForImageClassification(_MlpHeadModel):
    """An image classifier with an mlp head."""

    main_input_name = "pixel_values"
    _auto_model = AutoModelForImageClassification

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """As the model around the head; `pixel_values` is (batch, channels, height, width)."""
        return self.model(pixel_values=pixel_values, labels=labels, **kwargs)


class MlpHeadForSequenceClassification(_MlpHeadModel):
    """A text classifier with an mlp head."""

    main_input_name = "input_ids"
    _auto_model = AutoModelForSequenceClassification

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the model around the head; `input_ids` is (batch, tokens)."""
        if token_type_ids is not None:  # not every family takes them
            kwargs["token_type_ids"] = token_type_ids
        return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)


MlpHeadConfig.register_for_auto_class()
MlpHeadForImageClassification.register_for_auto_class("AutoModelForImageClassification")
MlpHeadForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
