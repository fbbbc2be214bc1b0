"""New output layers and poolings: put into a model, renewed, found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from hf_finetune.errors import UserError
from hf_finetune.model.custom_head import (
    CustomHeadConfig,
    CustomHeadForImageClassification,
    CustomHeadForSequenceClassification,
)
from hf_finetune.model.custom_layers import CosineHead, MlpHead, NeighboursHead, make_head
from hf_finetune.model.multi_task import MultiTaskConfig, MultiTaskModel, TaskHeads
from hf_finetune.recipes.section import Task

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Anatomy
    from hf_finetune.recipes.schema import Head as HeadSettings

# In a process that has hf_finetune, its own class reads such a folder and no remote code is needed.
AutoConfig.register(CustomHeadConfig.model_type, CustomHeadConfig, exist_ok=True)
AutoModelForImageClassification.register(CustomHeadConfig, CustomHeadForImageClassification, exist_ok=True)
AutoModelForSequenceClassification.register(CustomHeadConfig, CustomHeadForSequenceClassification, exist_ok=True)
AutoConfig.register(MultiTaskConfig.model_type, MultiTaskConfig, exist_ok=True)
AutoModel.register(MultiTaskConfig, MultiTaskModel, exist_ok=True)


_CLASSES: dict[Task, Any] = {
    "image-classification": CustomHeadForImageClassification,
    "text-classification": CustomHeadForSequenceClassification,
}


def auto_class(task: Task) -> Any:
    """The transformers class that loads models of a task."""
    return AutoModelForImageClassification if task == "image-classification" else AutoModelForSequenceClassification


def brings_code(model: Any) -> bool:
    """Whether a model, or the one inside a peft model, is saved with the code of its head beside it."""
    return isinstance(getattr(model, "config", None), CustomHeadConfig)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws the same numbers in the block on every rank, and leaves the CPU's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def output_layer(model: nn.Module, anatomy: Anatomy) -> str:
    """Name of the layer that gives the logits; of several tasks, of the module that holds their heads.

    Raises:
        UserError: no layer of the head gives one value a label.
    """
    modules = dict(model.named_modules())
    for name in anatomy.head.modules:
        if isinstance(getattr(modules.get(name), "original_module", modules.get(name)), TaskHeads):
            return name
    ours = [name for name, module in modules.items() if isinstance(module, MlpHead | CosineHead | NeighboursHead)]
    labels = model.config.num_labels  # type: ignore[union-attr]
    for name in reversed(anatomy.head.modules):
        if name in ours:
            return name
        outputs = (getattr(modules[name], "out_features", None), getattr(modules[name], "out_channels", None))
        if labels in outputs and not any(name.startswith(f"{outer}.") for outer in ours):
            return name
    raise UserError(
        f"{type(model).__name__} has no output layer with one value a label ({labels}); use another checkpoint."
    )


def renew(model: PreTrainedModel, name: str, seed: int) -> None:
    """Initialises a layer anew, in place, by the model's own rule for such layers."""
    layer = model.get_submodule(name)
    for parameter in layer.parameters():
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers skips what it loaded
    with seeded(seed):
        model._init_weights(layer)


def with_new_layers(
    model: PreTrainedModel,
    task: Task,
    seed: int,
    *,
    head: HeadSettings | None = None,
    pooling: Mapping[str, Any] | None = None,
    layer: str = "",
    scratch: bool = False,
    tasks: Sequence[Mapping[str, Any]] = (),
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Puts a head, a pooling or both into a model, in a wrapper that saves and loads itself.

    Args:
        model: a classification model, or a bare backbone.
        task: which of the two wrapper classes to use.
        seed: of the new weights.
        head: of the recipe; None keeps the classifier's own.
        pooling: `CustomHeadConfig`'s settings of the pooling and of what is around it; None keeps the classifier's own.
        layer: name of the classifier's output layer; "" for a bare backbone.
        scratch: whether all weights are random, those of a norm that moves behind the pooling too.
        tasks: as `MultiTaskConfig` takes them; each gets such a head.

    Returns:
        The model in its wrapper, and the names of the new parameters.

    Raises:
        UserError: the classifier's output layer is not linear and cannot be replaced.
    """
    settings: dict[str, Any] = {"base_class": auto_class(task).__name__, **(pooling or {})}
    if head is not None:
        settings["head"] = head.model_dump(mode="json")
        settings["output_layer"] = layer or None
        if layer:
            settings["in_features"] = _linear(model, layer, head.kind).in_features
    base = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}  # may be a folder
    if tasks:
        settings |= {"tasks": tasks, "modality": task}
    config = (MultiTaskConfig if tasks else CustomHeadConfig)(
        base=base,
        id2label=model.config.id2label,
        label2id=model.config.label2id,
        problem_type=model.config.problem_type,
        pad_token_id=getattr(model.config, "pad_token_id", None),
        **settings,
    )
    kind = MultiTaskModel if tasks else _CLASSES[task]
    with torch.device("meta"):
        wrapper = kind(config)
    before = {id(parameter): parameter for parameter in model.parameters()}  # held, so that no id is used again
    with seeded(seed):
        wrapper.equip(model)
    if tasks and layer and head is not None and head.kind == "linear":
        _start_as_the_classifier(model, wrapper, seed)
    fresh = [name for name, parameter in wrapper.named_parameters() if scratch or id(parameter) not in before]
    return wrapper, tuple(fresh)


def _start_as_the_classifier(model: PreTrainedModel, wrapper: Any, seed: int) -> None:
    """Draws linear heads by the model's own rule for its output layer: the first is what a run of one task has."""
    with seeded(seed):
        for head in wrapper.get_submodule(f"model.{wrapper.config.output_layer}").heads.values():
            head.output._is_hf_initialized = False
            model._init_weights(head.output)


def replace_head(wrapper: Any, layer: str, head: HeadSettings, seed: int) -> None:
    """Another head, in place, for a model that has one of ours already."""
    old = wrapper.get_submodule(layer)
    if not isinstance(old, MlpHead | CosineHead | NeighboursHead):
        old = _linear(wrapper, layer, head.kind)
        wrapper.config.output_layer = layer.removeprefix("model.")
    wrapper.config.head, wrapper.config.in_features = head.model_dump(mode="json"), old.in_features
    with seeded(seed):
        new = make_head(wrapper.config.head, old.in_features, old.out_features)
    wrapper.set_submodule(layer, new)


def _linear(model: PreTrainedModel, layer: str, kind: str) -> nn.Linear:
    old = model.get_submodule(layer)
    if not isinstance(old, nn.Linear):
        raise UserError(
            f"model.head.kind={kind} needs a linear output layer to replace, and {layer} of {type(model).__name__} is "
            f"{type(old).__name__}. Use model.head.kind=linear, or another checkpoint."
        )
    return old
