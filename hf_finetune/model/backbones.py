"""Which class of transformers a checkpoint is loaded into: a classifier, or a bare backbone that gets our head."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from transformers import AutoModel, AutoModelForTextEncoding, PretrainedConfig, ViTConfig

from hf_finetune.errors import UserError
from hf_finetune.model.custom_head import CustomHeadConfig
from hf_finetune.model.heads import auto_class
from hf_finetune.model.multi_task import MultiTaskConfig
from hf_finetune.model.timm_pooling import timm_class

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Task

# Their decoders write text; what they understood of one is in the encoder alone.
_ENCODERS = ("t5", "mt5", "umt5")
# What a classifier of these families pools by as it is; another pooling takes the bare backbone.
_OWN_POOLING = {
    "vit": "cls",
    "deit": "cls",
    "swin": "mean",
    "swinv2": "mean",
    "convnext": "mean",
    "convnextv2": "mean",
    "resnet": "mean",
    "regnet": "mean",
    "mobilenet_v2": "mean",
    "efficientnet": "mean",
}


def choose_class(
    config: PretrainedConfig, task: Task, pooling: str | None, checkpoint: str
) -> tuple[PretrainedConfig, Any]:
    """The configuration and the auto class to load a checkpoint with.

    - ViTMAE is loaded as the ViT that its encoder is; its decoder is dropped.
    - Of CLIP, SigLIP and other models of two towers, the task's tower is taken, and of T5 the encoder.
    - Without a classification class, or where `pooling` is not the family's own, it is the bare backbone.

    Args:
        config: of the checkpoint.
        task: image or text classification.
        pooling: `model.pooling` of the recipe.
        checkpoint: what the user wrote, for messages.

    Raises:
        UserError: the checkpoint is of another task or of several, or its family cannot be pooled so.
    """
    classifier = auto_class(task)
    if isinstance(config, MultiTaskConfig):
        raise UserError(
            f"{checkpoint} is a model of several tasks ({', '.join(each['name'] for each in config.tasks)}). Start "
            "from the checkpoint that it was made from."
        )
    if (getattr(config, "auto_map", None) or {}).get(classifier.__name__) and not isinstance(config, CustomHeadConfig):
        if pooling is not None:
            raise UserError(f"model.pooling={pooling}: {checkpoint} brings code of its own, which pools as it does.")
        return config, classifier
    if isinstance(config, CustomHeadConfig):
        _refuse_other_pooling(config, pooling, checkpoint)
        return config, classifier
    if config.model_type == "timm_wrapper":
        _refuse_other_task(classifier, config, task, checkpoint)
        return (config, classifier) if pooling is None else timm_class(config, pooling, checkpoint)
    if not _is_finished(config):
        config = _tower(_encoder_of_mae(config), task)
        if config.model_type in _ENCODERS and task == "text-classification":
            return config, AutoModelForTextEncoding
    if pooling in ("cls", "mean") and getattr(config, "classifier_pooling", pooling) != pooling:
        config = copy.deepcopy(config)
        config.classifier_pooling = pooling  # ModernBERT and its relatives have the choice
    if type(config) in classifier._model_mapping and pooling in (None, _own_pooling(config)):
        return config, classifier
    _refuse_other_task(AutoModel, config, task, checkpoint)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{checkpoint} is a {config.model_type} model, which reads with an encoder and answers with a decoder: "
            "its features cannot be pooled. Leave model.pooling out, or use another checkpoint."
        )
    return config, AutoModel


def _is_finished(config: PretrainedConfig) -> bool:
    return (config.architectures or [""])[0].endswith("Classification")


def _encoder_of_mae(config: PretrainedConfig) -> PretrainedConfig:
    """ViTMAE hides three patches in four at random, in eval mode too; its encoder is a ViT in every weight."""
    if config.model_type != "vit_mae":
        return config
    left_out = ("model_type", "architectures", "mask_ratio", "norm_pix_loss")
    settings = {name: value for name, value in config.to_dict().items() if not name.startswith("decoder_")}
    return ViTConfig(**{name: value for name, value in settings.items() if name not in left_out})


def _tower(config: PretrainedConfig, task: Task) -> PretrainedConfig:
    tower = getattr(config, "vision_config" if task == "image-classification" else "text_config", None)
    if tower is None or type(tower) not in AutoModel._model_mapping:
        return config
    # A text model with an eye is a text classifier as it is.
    return config if task == "text-classification" and type(config) in auto_class(task)._model_mapping else tower


def _own_pooling(config: Any) -> str:
    if config.model_type == "beit":
        return "mean" if config.use_mean_pooling else "cls"
    if hasattr(config, "classifier_pooling"):
        return str(config.classifier_pooling)
    return _OWN_POOLING.get(config.model_type, "")


def _refuse_other_task(auto: Any, config: PretrainedConfig, task: Task, checkpoint: str) -> None:
    """A bare backbone must read what the task shows it: an audio model has an AutoModel too."""
    found = auto._model_mapping.get(type(config), None)
    classes = found if isinstance(found, tuple | list) else (found,)
    wanted = "pixel_values" if task == "image-classification" else "input_ids"
    if getattr(classes[0], "main_input_name", None) != wanted:
        raise UserError(
            f"{checkpoint} is a {config.model_type} checkpoint, and transformers has no {task} model of that "
            f"architecture. Give a checkpoint that fits task: {task}, or change the task."
        )


def _refuse_other_pooling(config: CustomHeadConfig, pooling: str | None, checkpoint: str) -> None:
    if pooling not in (None, config.pooling):
        raise UserError(
            f"model.pooling={pooling}: {checkpoint} was fine-tuned with "
            f"{f'model.pooling={config.pooling}' if config.pooling else 'its own pooling'}. Leave model.pooling out, "
            "or start from the checkpoint that it was made from."
        )
