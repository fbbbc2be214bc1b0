"""What is between a backbone and its head: how its features become one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.custom_layers import as_tokens, pools_channels_last
from hf_finetune.model.empty_input import empty_input
from hf_finetune.model.heads import auto_class
from hf_finetune.model.quiet import quiet
from hf_finetune.model.timm_pooling import pool_layer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from hf_finetune.recipes.schema import Task

# Norms that run on the pooled vector alone: they stay behind the pooling, whatever it is.
_NORMS_AFTER_POOLING = {
    "beit": "pooler.layernorm",
    "data2vec-vision": "pooler.layernorm",
    "hiera": "pooler.layernorm",
    "convnext": "layernorm",
    "convnextv2": "layernorm",
    "clip_vision_model": "post_layernorm",
    "timm_wrapper": "timm_model.fc_norm",
}
# Modules that only lead to the pooled output; SigLIP's head is an attention pooling.
_POOLERS = ("pooler", "head")
_ONE_TOKEN = ("cls_token", "class_embedding", "distillation_token")


def classifier_pooling(model: Any, pooling: str, checkpoint: str) -> dict[str, Any]:
    """Settings for an exchange of a timm classifier's pooling layer."""
    layer = f"timm_model.{pool_layer(model.timm_model)}"
    width = int(model.timm_model.num_features)
    try:
        replaced = model.get_submodule(layer)
    except AttributeError:
        return {"pooling": pooling, "pool_layer": layer, "pool_width": width}
    seen: list[torch.Tensor] = []
    hook = replaced.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        _show_empty_input(model, checkpoint)
    finally:
        hook.remove()
    if seen:  # a VGG's features pass its large layers before they are pooled, and get another width
        tokens = as_tokens(seen[0], pools_channels_last(replaced))
        width = tokens.shape[-1]
    return {"pooling": pooling, "pool_layer": layer, "pool_width": width}


def backbone_pooling(
    model: PreTrainedModel, pooling: str | None, missing: set[str], task: Task, processor: Any, checkpoint: str
) -> dict[str, Any]:
    """Settings of `CustomHeadConfig` for a bare backbone, found by showing it an empty input.

    Without `pooling` it is the backbone's pooled output, if it has one and the checkpoint trained it; else an image's
    class token or the mean of its patches, and the mean of a text's tokens (Ni et al. 2021, arXiv:2108.08877).

    Args:
        model: as it was loaded.
        pooling: of the recipe.
        missing: names of the weights that the checkpoint lacked.
        task: image or text classification.
        processor: for a text, its tokenizer tells whether there is a class token, and where.
        checkpoint: what the user wrote, for messages.

    Raises:
        UserError: the backbone has no class token, or gives features that cannot be pooled.
    """
    output = _show_empty_input(model, checkpoint)
    prefix = _prefix_tokens(model)
    if pooling is None:
        pooled = getattr(output, "pooler_output", None) is not None
        trained = pooled and not any(name.startswith(_POOLERS) for name in missing)
        pooling = "pooler" if trained else "cls" if task == "image-classification" and prefix else "mean"
    elif pooling == "cls":
        pooling = _class_token(task, processor, prefix, checkpoint)
    # T5's AutoModel has the decoder too.
    encoder = type(model).__name__.endswith("EncoderModel")
    settings: dict[str, Any] = {
        "base_class": "AutoModelForTextEncoding" if encoder else "AutoModel",
        "pooling": pooling,
    }
    settings["feature_dropout"] = _dropout_of_classifier(model.config, task)
    if pooling == "pooler":
        return {**settings, "in_features": output.pooler_output.flatten(1).shape[1]}
    features = _features(output, model, checkpoint)
    norm = _NORMS_AFTER_POOLING.get(model.config.model_type, "")
    has_norm = isinstance(_find(model, norm), nn.LayerNorm)
    poolers = [name for name in _POOLERS if next(getattr(model, name, nn.Identity()).parameters(), None) is not None]
    last = features.ndim == 4 and _channels_last(model)
    width = features.shape[-1] if features.ndim == 3 or last else features.shape[1]
    return {
        **settings,
        "in_features": width,
        "pool_width": width,
        "prefix_tokens": prefix if features.ndim == 3 else 0,
        "channels_last": last,
        "norm_layer": norm if has_norm else None,
        "unused": poolers,
    }


def _show_empty_input(model: Any, checkpoint: str) -> Any:
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            return model.eval()(**empty_input(model))
    except Exception as fault:  # whatever a model makes of an input that it does not expect
        raise UserError(
            f"{checkpoint}: {type(model).__name__} could not be run on an empty input, to see what its features are "
            f"like: {fault}. Another head or pooling cannot be put on it; use another checkpoint."
        ) from fault
    finally:
        for module, mode in modes.items():
            module.training = mode


def _features(output: Any, model: Any, checkpoint: str) -> torch.Tensor:
    features = getattr(output, "last_hidden_state", None)
    if features is None or features.ndim not in (3, 4):
        raise UserError(
            f"{checkpoint}: {type(model).__name__} gives no features of tokens or maps that could be pooled. Use "
            "another checkpoint."
        )
    return features


def _prefix_tokens(model: Any) -> int:
    """Tokens of an image that stand before its patches: class, distillation, registers."""
    if hasattr(model, "timm_model"):
        return int(getattr(model.timm_model, "num_prefix_tokens", 0))
    if model.config.model_type == "dinov3_convnext":
        return 1  # it puts the mean before the pixels
    count = 0
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        count += 1 if last in _ONE_TOKEN else parameter.shape[1] if last == "register_tokens" else 0
    return count


def _class_token(task: Task, processor: Any, prefix: int, checkpoint: str) -> str:
    """ "cls" or "last": where the class token stands; XLNet's is the last."""
    if task == "image-classification":
        if not prefix:
            raise UserError(
                f"model.pooling=cls: {checkpoint} has no class token. Use mean, max, gem or attention, or leave "
                "model.pooling out for its own."
            )
        return "cls"
    ids = processor("a")["input_ids"]
    if processor.cls_token_id is not None and ids[0] == processor.cls_token_id:
        return "cls"
    if processor.cls_token_id is not None and ids[-1] == processor.cls_token_id:
        return "last"
    raise UserError(
        f"model.pooling=cls: the tokenizer of {checkpoint} puts no class token into a text. Use mean, max, gem or "
        "attention, or leave model.pooling out for its own."
    )


def _channels_last(model: Any) -> bool:
    return getattr(getattr(model, "timm_model", None), "output_fmt", "NCHW") == "NHWC"


def _dropout_of_classifier(config: PretrainedConfig, task: Task) -> float:
    """Rate of the dropout that the family's classifier has before its output layer; 0 without such a class."""
    classes = auto_class(task)
    if type(config) not in classes._model_mapping:
        return 0.0
    with quiet(), torch.device("meta"):
        classifier = classes.from_config(config)
    for name, module in classifier.named_modules():
        if isinstance(module, nn.Dropout) and not name.startswith(f"{classifier.base_model_prefix}."):
            return float(module.p)
    return 0.0


def _find(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name) if name else None
    except AttributeError:
        return None
