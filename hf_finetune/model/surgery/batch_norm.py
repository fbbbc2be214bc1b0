"""`model.batch_norm` and `model.batch_norm_momentum`: what happens to running statistics while the model learns."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import nn

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Anatomy


def has_statistics(module: nn.Module) -> bool:
    """Whether this is a norm with running statistics, of torch or of a family's own class."""
    return getattr(module, "running_mean", None) is not None


def check_batch_norm(net: nn.Module, key: str, kind: str) -> None:
    """Refuses to set what is not there.

    Raises:
        UserError: the model has no BatchNorm.
    """
    if not any(has_statistics(module) for module in net.modules()):
        raise UserError(f"{key}: {kind} has no BatchNorm, whose statistics could move. Remove it.")


def set_momentum(net: nn.Module, momentum: float) -> str:
    """The share of each batch in the running statistics (PyTorch's sense), of every BatchNorm."""
    layers = [module for module in net.modules() if has_statistics(module)]
    for module in layers:
        module.momentum = momentum  # type: ignore[assignment]
    return f"batch_norm_momentum {momentum:g} in {len(layers)} layers"


def still_batch_norms(net: nn.Module, anatomy: Anatomy, mode: str | None) -> tuple[str, ...]:
    """Names of the layers that `model.batch_norm=frozen` holds in eval mode: all but the new head's own.

    Their scales and shifts learn where their part does; their statistics stay the checkpoint's.

    Args:
        net: the model as `anatomy` names its modules.
        anatomy: stem, blocks, head.
        mode: the recipe's `model.batch_norm`.
    """
    if mode != "frozen":
        return ()
    head: Collection[str] = set(anatomy.head.modules)
    return tuple(name for name, module in net.named_modules() if has_statistics(module) and name not in head)
