"""The frozen prefix of a stage: the longest leading part of the anatomy that does not change in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_finetune.strategy.frozen import modules_of

if TYPE_CHECKING:
    from hf_finetune.strategy.apply import Applied


@dataclass(frozen=True)
class FrozenPrefix:
    """What comes first in the forward pass and gives the same output for the same sample throughout a stage.

    Args:
        blocks: how many blocks it holds, beside the stem.
        of: blocks of the model.
        modules: names of its largest modules: none of them lies in another.
        tensors: names of its parameters.
    """

    blocks: int
    of: int
    modules: tuple[str, ...]
    tensors: tuple[str, ...]


def frozen_prefix(applied: Applied, index: int = 0) -> FrozenPrefix | None:
    """The frozen prefix of a stage, or None where there is none of at least the stem.

    A part belongs to it when nothing in it learns in the stage and all of it is held in eval mode: without dropout, and
    with statistics that do not move. What an earlier stage has changed is not the checkpoint's any more, of which
    features are made before training, so the earlier stages count too.

    Args:
        applied: a strategy on a model without adapters.
        index: of the stage.
    """
    model, stages = applied.model, applied.stages[: index + 1]
    if hasattr(model, "peft_config"):
        return None  # adapters sit in every block
    parts = []
    for part in applied.anatomy.parts:
        if any(not stage.multipliers.keys().isdisjoint(part.parameters) for stage in stages):
            break
        parts.append(part)
    if not parts:
        return None
    names = modules_of(model, parts)
    if not all(_held(names, stage.still) for stage in stages):
        return None
    inside = set(names)
    largest = tuple(name for name in names if not any(outer in inside for outer in _around(name)))
    tensors = tuple(name for part in parts for name in part.parameters)
    blocks = sum(part.name.startswith("block") for part in parts)
    return FrozenPrefix(blocks, len(applied.anatomy.blocks), largest, tensors)


def _held(names: tuple[str, ...], still: tuple[str, ...]) -> bool:
    held = set(still)
    return all(name in held or any(outer in held for outer in _around(name)) for name in names)


def _around(name: str) -> list[str]:
    """Names of the modules around one: "a.b" of "a.b.c", then "a"."""
    pieces = name.split(".")
    return [".".join(pieces[:length]) for length in range(len(pieces) - 1, 0, -1)]
