"""The head of a loaded model: kept, renewed, or another kind with another pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import Anatomy, find_anatomy
from hf_finetune.model.custom_head import CustomHeadConfig
from hf_finetune.model.custom_layers import NeighboursHead
from hf_finetune.model.families import is_backbone
from hf_finetune.model.heads import output_layer, renew, replace_head, with_new_layers
from hf_finetune.model.pooling import backbone_pooling, classifier_pooling
from hf_finetune.model.timm_pooling import pools_so

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_finetune.recipes.schema import Model, Task


def new_head(
    net: PreTrainedModel,
    processor: Any,
    fresh: set[str],
    model: Model,
    task: Task,
    *,
    seed: int,
    keep: bool,
    scratch: bool,
    tasks: Sequence[Mapping[str, Any]] = (),
) -> tuple[PreTrainedModel, tuple[str, ...], Anatomy]:
    """Makes what is not in the checkpoint.

    Args:
        net: a classifier or a bare backbone, with the checkpoint's weights.
        processor: its image processor or tokenizer.
        fresh: names of the parameters that the checkpoint lacks.
        model: the recipe's model section.
        task: image or text classification.
        seed: of the new weights.
        keep: leave a classifier's own head as it is.
        scratch: all weights are random already.
        tasks: where there are several, as `MultiTaskConfig` takes them.

    Returns:
        The model, the names of all its new parameters in the model's order, and its anatomy.

    Raises:
        UserError: head and problem, or pooling and family, do not go together.
    """
    problems = [task["problem_type"] for task in tasks] or [net.config.problem_type]
    if model.head.kind == "cosine" and "regression" in problems:
        raise UserError(
            "model.head.kind=cosine: a cosine is bounded, and the targets of a regression are not. Use linear or mlp."
        )
    if tasks:
        _refuse_several(net, model)
    pooling = _pooling(net, processor, fresh, model, task)
    if is_backbone(net):
        net, fresh = _wrapped(net, fresh, model, task, seed, scratch, pooling=pooling, head=model.head, tasks=tasks)
        return _described(net, fresh)
    layer = output_layer(net, find_anatomy(net, fresh))
    neighbours = isinstance(net.get_submodule(layer), NeighboursHead)  # of a run with strategy=features; never learns
    if isinstance(net.config, CustomHeadConfig) and (model.head.kind != "linear" or neighbours):
        replace_head(net, layer, model.head, seed)
        inside = {f"{layer}.{name}" for name, _ in net.get_submodule(layer).named_parameters()}
        return _described(net, {name for name in fresh if not name.startswith(f"{layer}.")} | inside)
    if not keep and not scratch:
        renew(net, layer, seed)
        fresh = fresh | {f"{layer}.{name}" for name, _ in net.get_submodule(layer).named_parameters()}
    head = None if model.head.kind == "linear" and not tasks else model.head
    if head is not None or pooling is not None:
        net, fresh = _wrapped(
            net, fresh, model, task, seed, scratch, pooling=pooling, head=head, layer=layer if head else "", tasks=tasks
        )
    return _described(net, fresh)


def _refuse_several(net: PreTrainedModel, model: Model) -> None:
    if isinstance(net.config, CustomHeadConfig):
        raise UserError(
            f"tasks: {model.checkpoint} was fine-tuned with a head or pooling of its own, beside which there is no "
            "place for several heads. Start from the checkpoint that it was made from."
        )


def head_in_words(net: Any, original: str, model: Model) -> list[str]:
    """What is told of the choice of class, head and pooling; nothing of a plain classifier with a linear head.

    Args:
        net: the model with its head.
        original: the model type of the checkpoint.
        model: the recipe's model section.
    """
    config = net.config.base_config() if isinstance(net.config, CustomHeadConfig) else net.config
    lines = []
    if original not in (config.model_type, CustomHeadConfig.model_type):
        lines.append(f"of the {original} checkpoint the part that is a {config.model_type} is used")
    elif type(getattr(net, "model", None)).__name__.endswith("EncoderModel"):
        lines.append(f"of the {original} checkpoint the encoder is used")
    pooling = getattr(net.config, "pooling", None) or model.pooling
    if pooling is not None:
        lines.append("head on the backbone's own pooled output" if pooling == "pooler" else f"pooling: {pooling}")
    if model.head.kind != "linear":
        lines.append(f"head: {model.head.kind}")
    return lines


def _pooling(net: Any, processor: Any, fresh: set[str], model: Model, task: Task) -> dict[str, Any] | None:
    """Settings of a pooling of ours; None where the model pools as the recipe says already."""
    if is_backbone(net):
        return backbone_pooling(net, model.pooling, fresh, task, processor, model.checkpoint)
    if model.pooling is None or not hasattr(net, "timm_model") or pools_so(net.timm_model, model.pooling):
        return None
    return classifier_pooling(net, model.pooling, model.checkpoint)


def _wrapped(
    net: PreTrainedModel, fresh: set[str], model: Model, task: Task, seed: int, scratch: bool, **layers: Any
) -> tuple[PreTrainedModel, set[str]]:
    wrapper, new = with_new_layers(net, task, seed, scratch=scratch, **layers)
    return wrapper, {f"model.{name}" for name in fresh} | set(new)


def _described(net: PreTrainedModel, fresh: set[str]) -> tuple[PreTrainedModel, tuple[str, ...], Anatomy]:
    ordered = tuple(name for name, _ in net.named_parameters() if name in fresh)
    return net, ordered, find_anatomy(net, ordered)
