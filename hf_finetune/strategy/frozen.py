"""Frozen means frozen: no gradients, and eval mode that `model.train()` does not undo.

In eval mode BatchNorm keeps its running statistics, and dropout and drop-path are off, so a frozen prefix gives the
same output for the same input throughout training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import MethodType
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Part


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of `train` on a module that is held still."""
    return module


def hold_still(module: nn.Module) -> None:
    """Puts a module and all in it in eval mode; later calls of `train`, on it or around it, leave it there."""
    for inner in module.modules():
        inner.training = False
        inner.train = MethodType(_stay_in_eval, inner)  # type: ignore[method-assign]


def release(module: nn.Module) -> None:
    """Undoes `hold_still`: `train` works again. The mode is left as it is."""
    for inner in module.modules():
        inner.__dict__.pop("train", None)


def held_still(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that are held still."""
    return tuple(name for name, module in model.named_modules() if name and "train" in module.__dict__)


def require_gradients(model: nn.Module, names: Collection[str]) -> None:
    """Lets the named parameters learn, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def remember_learning(model: nn.Module, names: Collection[str]) -> None:
    """Writes down on a model which parameters learn at any time of the run; a stage may freeze some for a while."""
    model.__dict__["_learning_at_any_time"] = frozenset(names)


def ever_learning(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that learn at any time of the run: as written down, or else those that learn now."""
    now = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    found: frozenset[str] = model.__dict__.get("_learning_at_any_time", now)
    return found


def modules_of(model: nn.Module, parts: Iterable[Part]) -> tuple[str, ...]:
    """Names of the modules that lie in these parts alone, the containers that span several of them included."""
    owned = {name for part in parts for name in part.modules}
    leaves = {name for name, module in model.named_modules() if next(module.children(), None) is None}
    found = []
    for name, module in model.named_modules():
        if not name:
            continue
        inside = {f"{name}.{inner}" for inner, _ in module.named_modules() if inner} & leaves
        own = next(module.parameters(recurse=False), None) is not None
        if name in owned or (inside and not own and inside <= owned):
            found.append(name)
    return tuple(found)


def batch_norms(model: nn.Module, outside: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the layers with running statistics, except those in `outside`."""
    return tuple(
        name
        for name, module in model.named_modules()
        if getattr(module, "running_mean", None) is not None and name not in outside
    )
