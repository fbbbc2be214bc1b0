"""Classifiers with a head or a pooling of hf_finetune's, in a form that loads without hf_finetune.

This file and `custom_layers.py` stand alone: `save_pretrained` copies them beside the weights, and `pipeline(task,
model=folder, trust_remote_code=True)` reads them from there. Without that flag transformers refuses the folder, rather
than load the backbone with a random linear head.

There are two forms. A classifier of transformers, in which the output layer, the pooling or both are replaced; or a
bare backbone, whose tokens (or pixels of its last map) are pooled, normed, dropped out and given to a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

# Relative, so that transformers copies that file too.
from .custom_layers import CosineHead, MapPooling, MlpHead, Pooling, as_tokens, make_head

_BASE_CLASSES = (
    "AutoModelForImageClassification",
    "AutoModelForSequenceClassification",
    "AutoModel",
    "AutoModelForTextEncoding",
)


class CustomHeadConfig(PretrainedConfig):
    """Configuration of a classifier with a head or a pooling of hf_finetune's.

    Args:
        base: configuration of the model inside, as a dictionary with "model_type".
        base_class: the auto class of that model; "AutoModel" and "AutoModelForTextEncoding" are bare backbones.
        head: the head, {"kind": "linear", "mlp" or "cosine", ...}; None keeps the classifier's own.
        in_features: width of what the head receives.
        output_layer: name of the classifier's layer that the head replaces.
        pooling: "cls", "last", "mean", "max", "gem", "attention"; "pooler" is the backbone's own pooled output.
        pool_layer: name of the classifier's layer that the pooling replaces; None for a bare backbone.
        pool_width: width of what the pooling receives.
        prefix_tokens: tokens before those of the patches.
        channels_last: whether maps are (batch, height, width, channels).
        norm_layer: name of the backbone's norm that is to follow the pooling.
        unused: names of the backbone's modules that this model has no use for.
        feature_dropout: dropout between pooling and head of a backbone.
    """

    model_type = "hf_finetune_custom_head"

    def __init__(
        self,
        base: dict[str, Any] | None = None,
        base_class: str = "AutoModel",
        head: dict[str, Any] | None = None,
        in_features: int = 1,
        output_layer: str | None = None,
        pooling: str | None = None,
        pool_layer: str | None = None,
        pool_width: int = 1,
        prefix_tokens: int = 0,
        channels_last: bool = False,
        norm_layer: str | None = None,
        unused: Sequence[str] = (),
        feature_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if base is not None and "pretrained_cfg" in base:
            # AutoImageProcessor takes a timm model's preprocessing from these.
            kwargs["pretrained_cfg"] = base["pretrained_cfg"]
            kwargs["image_processor_type"] = "TimmWrapperImageProcessor"
        self.base, self.base_class = base, base_class
        self.head, self.in_features, self.output_layer = head, in_features, output_layer
        self.pooling, self.pool_layer, self.pool_width = pooling, pool_layer, pool_width
        self.prefix_tokens, self.channels_last = prefix_tokens, channels_last
        self.norm_layer, self.unused, self.feature_dropout = norm_layer, list(unused), feature_dropout
        super().__init__(**kwargs)

    @property
    def is_backbone(self) -> bool:
        """Whether the model inside is a bare backbone."""
        return not self.base_class.endswith("Classification")

    def base_config(self) -> PretrainedConfig:
        """The configuration of the model inside, with this one's labels, as an object."""
        settings = dict(self.base or {})
        model_type = settings.pop("model_type")
        if model_type == "timm_wrapper":
            from transformers import TimmWrapperConfig  # imports timm, half a second that other models need not wait

            config = TimmWrapperConfig.from_dict(settings)
        else:
            config = AutoConfig.for_model(model_type, **settings)
        config.id2label, config.label2id, config.problem_type = self.id2label, self.label2id, self.problem_type
        return config


class _CustomHeadModel(PreTrainedModel):
    """A classifier whose head, pooling or both are hf_finetune's."""

    config_class: type[CustomHeadConfig] = CustomHeadConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: CustomHeadConfig) -> None:
        super().__init__(config)
        if config.base_class not in _BASE_CLASSES:
            raise ValueError(f"base_class={config.base_class}: give one of {', '.join(_BASE_CLASSES)}")
        self.equip(getattr(transformers, config.base_class).from_config(config.base_config()))
        self.post_init()

    def equip(self, model: PreTrainedModel) -> None:
        """Takes a model of the configured kind inside, with a new head and pooling."""
        config = self.config
        self.model = model
        self.main_input_name = model.main_input_name
        if config.is_backbone:
            self.task_norm: nn.Module = nn.Identity()
            if config.norm_layer:
                self.task_norm = model.get_submodule(config.norm_layer)
            for name in {config.norm_layer, *config.unused} - {None}:
                model.set_submodule(name, nn.Identity())
            self.task_pooling: nn.Module = nn.Identity()
            if config.pooling != "pooler":
                self.task_pooling = Pooling(config.pooling, config.pool_width, config.prefix_tokens)
            self.task_dropout = nn.Dropout(config.feature_dropout)
            self.task_head = self.make_head()
            return
        if config.output_layer:
            model.set_submodule(config.output_layer, self.make_head())
        if config.pool_layer:
            pooling: Any = Pooling(config.pooling, config.pool_width)
            parent, _, name = config.pool_layer.rpartition(".")
            replaced = getattr(model.get_submodule(parent), name)
            if type(replaced).__name__ == "SelectAdaptivePool2d":
                pooling = MapPooling(pooling, replaced)
            setattr(model.get_submodule(parent), name, pooling)

    def make_head(self) -> nn.Module:
        """A new head as it is configured."""
        return make_head(self.config.head, self.config.in_features, self.config.num_labels)

    def logits_of(self, output: Any, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (batch, labels) of a bare backbone's output; `mask` (batch, tokens) tells which tokens are real."""
        if self.config.pooling == "pooler":
            features = output.pooler_output.flatten(1)
        else:
            features = self.task_pooling(as_tokens(output.last_hidden_state, self.config.channels_last), mask)
        return self.task_head(self.task_dropout(self.task_norm(features)))

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, MlpHead | CosineHead | Pooling):
            module.initialize()

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()


class CustomHeadForImageClassification(_CustomHeadModel):
    """An image classifier with a head or a pooling of hf_finetune's."""

    main_input_name = "pixel_values"

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """As transformers' image classifiers; `pixel_values` is (batch, channels, height, width)."""
        if not self.config.is_backbone:
            return self.model(pixel_values=pixel_values, labels=labels, **kwargs)
        output = self.model(pixel_values=pixel_values, **{**kwargs, "return_dict": True})
        logits = self.logits_of(output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=getattr(output, "hidden_states", None))


class CustomHeadForSequenceClassification(_CustomHeadModel):
    """A text classifier with a head or a pooling of hf_finetune's."""

    main_input_name = "input_ids"

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As transformers' text classifiers; `input_ids` is (batch, tokens)."""
        if token_type_ids is not None:  # not every family takes them
            kwargs["token_type_ids"] = token_type_ids
        if not self.config.is_backbone:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **{**kwargs, "return_dict": True})
        logits = self.logits_of(output, attention_mask)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=getattr(output, "hidden_states", None))


CustomHeadConfig.register_for_auto_class()
CustomHeadForImageClassification.register_for_auto_class("AutoModelForImageClassification")
CustomHeadForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
