"""Optimizers by their plain names: `training.optim=sgd`, with `training.optim_args=momentum=0.9,nesterov=true`.

All other names of TrainingArguments are transformers' own affair.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.recipes.optimizer_names import PLAIN_OPTIMIZERS
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.muon import MuonWithAdamW, split_for_muon

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied

# Said elsewhere in a recipe, or of no use in a training loop.
_NOT_HERE = ("self", "params", "lr", "weight_decay", "maximize", "capturable", "differentiable")
_ADAM_LIKE = ("adam", "adamw", "adamax")
# One kernel for all parameters, on the CPU and on GPUs; without it Adam reads its step number back from the device.
_FUSED, _KINDS_OF_STEP = ("sgd", "adam", "adamw", "adagrad"), {"fused", "foreach"}


@dataclass(frozen=True)
class PlainOptimizer:
    """An optimizer by its plain name.

    Args:
        name: one of `PLAIN_OPTIMIZERS`.
        options: of its class, beside rate and weight decay.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, groups: Iterable[dict[str, Any]], applied: Applied | None = None) -> torch.optim.Optimizer:
        """The optimizer over parameter groups with "params", "lr" and "weight_decay".

        Args:
            groups: of the parameters that learn.
            applied: for Muon, which needs to know the hidden matrices.

        Raises:
            UserError: a value that the optimizer refuses.
        """
        try:
            if self.name == "muon":
                if applied is None:
                    raise ValueError("Muon needs the model")
                matrices = {id(parameter) for parameter in hidden_matrices(applied)}
                return MuonWithAdamW(split_for_muon(list(groups), matrices), self.options, {"fused": True})
            kind: Any = optimizer_class(self.name)
            fused = {} if self.options.keys() & _KINDS_OF_STEP or self.name not in _FUSED else {"fused": True}
            optimizer: torch.optim.Optimizer = kind(list(groups), **self.options, **fused)
            return optimizer
        except (TypeError, ValueError) as fault:
            raise UserError(f"training.optim_args: {self.name} refuses them: {fault}") from fault


def plain_optimizer(recipe: Recipe) -> PlainOptimizer | None:
    """The optimizer that a recipe names plainly; None where the name is transformers' alone, or none is given.

    Raises:
        UserError: `training.optim_args` that this optimizer does not have, or that are no values.
    """
    values = recipe.training.values()
    name = values.get("optim")
    if name not in PLAIN_OPTIMIZERS:
        return None
    options: dict[str, Any] = {}
    if name == "sgd":
        options["momentum"] = 0.9  # plain SGD fine-tunes nothing in a few epochs
    if name == "muon":
        options["adjust_lr_fn"] = "match_rms_adamw"
    if name in _ADAM_LIKE:
        if "adam_epsilon" in values:
            options["eps"] = values["adam_epsilon"]
        if "adam_beta1" in values or "adam_beta2" in values:
            options["betas"] = (values.get("adam_beta1", 0.9), values.get("adam_beta2", 0.999))
    return PlainOptimizer(name, options | parse_options(name, values.get("optim_args")))


def parse_options(name: str, text: str | None) -> dict[str, Any]:
    """`momentum=0.9,nesterov=true` as an optimizer's arguments; a pair of numbers is written `betas=(0.9,0.99)`.

    Raises:
        UserError: a name that the optimizer does not have (those it has are listed), or a value that is none.
    """
    allowed = [key for key in inspect.signature(optimizer_class(name)).parameters if key not in _NOT_HERE]
    found: dict[str, Any] = {}
    for item in _split(text or ""):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key in ("lr", "weight_decay"):
            where = "training.learning_rate" if key == "lr" else "training.weight_decay"
            raise UserError(f"training.optim_args: {key} is said by {where}: remove it.")
        if key not in allowed or not equals:
            raise UserError(
                f"training.optim_args: '{item}' is not an argument of {name}: give name=value with "
                f"{', '.join(allowed)}, separated by commas."
            )
        found[key] = _value(key, value)
    return found


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """torch's class of that name, or timm's where torch has none; for muon, that of the hidden matrices."""
    if name == "lion":
        from timm.optim import Lion

        return Lion
    classes: dict[str, type[torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
        "adadelta": torch.optim.Adadelta,
        "adamax": torch.optim.Adamax,
        "muon": torch.optim.Muon,
    }
    return classes[name]


def hidden_matrices(applied: Applied) -> list[nn.Parameter]:
    """The parameters that Muon is for: weight matrices between the embeddings and the head that learn."""
    tables = {
        id(parameter)
        for module in applied.model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    return [
        parameter
        for name, parameter in applied.model.named_parameters()
        if parameter.requires_grad
        and parameter.ndim == 2
        and id(parameter) not in tables
        and applied.part_name(name) != "head"
    ]


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items if item.strip()]


def _value(key: str, text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if text.isidentifier():
            return text
        raise UserError(f"training.optim_args: {key}={text} is neither a number, true, false nor a name.") from None
    return tuple(value) if isinstance(value, list) else value
