"""New output layers: a linear one, or a multilayer perceptron in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from hf_finetune.errors import UserError
from hf_finetune.model.mlp_head import (
    MlpHead,
    MlpHeadConfig,
    MlpHeadForImageClassification,
    MlpHeadForSequenceClassification,
)

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Anatomy
    from hf_finetune.recipes.schema import MlpHead as MlpHeadSettings
    from hf_finetune.recipes.schema import Task

# In a process that has hf_finetune, its own class reads such a folder and no remote code is needed.
AutoConfig.register(MlpHeadConfig.model_type, MlpHeadConfig, exist_ok=True)
AutoModelForImageClassification.register(MlpHeadConfig, MlpHeadForImageClassification, exist_ok=True)
AutoModelForSequenceClassification.register(MlpHeadConfig, MlpHeadForSequenceClassification, exist_ok=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws the same numbers in the block on every rank, and leaves the CPU's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def output_layer(model: nn.Module, anatomy: Anatomy) -> str:
    """Name of the layer that gives the logits.

    Raises:
        UserError: no layer of the head gives one value a label.
    """
    modules = dict(model.named_modules())
    labels = model.config.num_labels  # type: ignore[union-attr]
    for name in reversed(anatomy.head.modules):
        if isinstance(modules[name], MlpHead):
            return name
        if labels in (getattr(modules[name], "out_features", None), getattr(modules[name], "out_channels", None)):
            inside_mlp = any(isinstance(modules[outer], MlpHead) and name.startswith(f"{outer}.") for outer in modules)
            if not inside_mlp:
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


def with_mlp_head(
    model: PreTrainedModel, layer: str, head: MlpHeadSettings, task: Task, seed: int
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Puts an mlp in the place of a linear output layer.

    Args:
        model: a classification model.
        layer: name of its output layer.
        head: widths, activation, dropout.
        task: which of the two wrapper classes to use.
        seed: of the new weights.

    Returns:
        The model in its wrapper, which saves and loads itself, and the names of the new parameters.

    Raises:
        UserError: the output layer is not linear.
    """
    old = model.get_submodule(layer)
    if not isinstance(old, nn.Linear):
        raise UserError(
            f"model.head.kind=mlp needs a linear output layer to replace, and {layer} of {type(model).__name__} is "
            f"{type(old).__name__}. Use model.head.kind=linear, or another checkpoint."
        )
    settings: dict[str, Any] = {"hidden": list(head.hidden), "activation": head.activation, "dropout": head.dropout}
    config = MlpHeadConfig(
        base=model.config.to_dict(),
        output_layer=layer,
        in_features=old.in_features,
        id2label=model.config.id2label,
        label2id=model.config.label2id,
        problem_type=model.config.problem_type,
        pad_token_id=getattr(model.config, "pad_token_id", None),
        **settings,
    )
    kind = MlpHeadForImageClassification if task == "image-classification" else MlpHeadForSequenceClassification
    with seeded(seed):
        with torch.device("meta"):
            wrapper = kind(config)
        mlp = MlpHead(old.in_features, out_features=old.out_features, **settings)
        mlp.initialize()
    model.set_submodule(layer, mlp)
    wrapper.model = model
    fresh = tuple(f"model.{layer}.{name}" for name, _ in mlp.named_parameters())
    return wrapper, fresh
