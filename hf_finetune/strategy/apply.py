"""A recipe's strategy, applied to a loaded model: which parts learn, which are held still, and at what rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.strategy.adapters import add_lora, plain_name
from hf_finetune.strategy.frozen import batch_norms, hold_still, modules_of, require_gradients
from hf_finetune.strategy.param_groups import parameter_groups
from hf_finetune.strategy.table import strategy_table

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Anatomy
    from hf_finetune.model.checkpoint import LoadedModel
    from hf_finetune.recipes.schema import Recipe


@dataclass
class Applied:
    """What a strategy made of a model.

    Args:
        model: the model to train; a PeftModel for lora, else the one that was given.
        anatomy: of the model before adapters.
        learns: for every part, by name, whether anything in it learns.
        head_multiplier: rate of the head over the rate of the rest.
        still: names of the modules of `model` that stay in eval mode.
    """

    model: nn.Module
    anatomy: Anatomy
    learns: dict[str, bool]
    head_multiplier: float
    still: tuple[str, ...]

    def hold_still(self) -> None:
        """Puts what is frozen in eval mode, for good: `model.train()` does not wake it. May be called again."""
        for name in self.still:
            hold_still(self.model.get_submodule(name))

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with "name", "params", "lr" and "weight_decay"; see `param_groups`."""
        return parameter_groups(self, lr, weight_decay)

    def table(self, lr: float) -> str:
        """The table that is printed before training: part, parameters, learns, rate."""
        return strategy_table(self, lr)

    def part_name(self, parameter: str) -> str:
        """The part that a parameter of `model` belongs to; an adapter belongs to the part of the layer it adapts.

        Args:
            parameter: as in `model.named_parameters()`.
        """
        return self.anatomy.part_of(plain_name(parameter, self._names)).name

    @property
    def _names(self) -> frozenset[str]:
        return frozenset(name for part in self.anatomy.parts for name in part.parameters)


def apply_strategy(loaded: LoadedModel, recipe: Recipe) -> Applied:
    """Freezes, adapts and holds still what the recipe's strategy says; with lora, the model is adapted in place.

    Raises:
        UserError: more blocks shall learn than there are, or the adapters' targets match nothing.
    """
    return _STRATEGIES[recipe.strategy.kind](loaded, recipe)


def _everything(loaded: LoadedModel, recipe: Recipe) -> Applied:
    return _some_parts(loaded, recipe, {part.name for part in loaded.anatomy.parts})


def _head(loaded: LoadedModel, recipe: Recipe) -> Applied:
    return _some_parts(loaded, recipe, {"head"})


def _freeze(loaded: LoadedModel, recipe: Recipe) -> Applied:
    blocks, wanted = loaded.anatomy.blocks, recipe.strategy.train_blocks  # type: ignore[union-attr]
    if wanted > len(blocks):
        raise UserError(
            f"strategy.train_blocks={wanted}: {recipe.model.checkpoint} has {len(blocks)} "
            f"{'block' if len(blocks) == 1 else 'blocks'}. Give at most that many, or strategy=full."
        )
    return _some_parts(loaded, recipe, {"head", *(block.name for block in blocks[-wanted:])})


def _some_parts(loaded: LoadedModel, recipe: Recipe, learning: set[str]) -> Applied:
    """The parts in `learning` learn; all others are frozen in eval mode."""
    model, anatomy = loaded.model, loaded.anatomy
    require_gradients(model, {name for part in anatomy.parts if part.name in learning for name in part.parameters})
    still = modules_of(model, [part for part in anatomy.parts if part.name not in learning])
    learns = {part.name: part.name in learning for part in anatomy.parts}
    # A head that the checkpoint brought is as pretrained as the rest.
    multiplier = _head_multiplier(recipe) if loaded.fresh else 1.0
    applied = Applied(model, anatomy, learns, multiplier, still)
    applied.hold_still()
    return applied


def _lora(loaded: LoadedModel, recipe: Recipe) -> Applied:
    anatomy = loaded.anatomy
    model, adapted = add_lora(loaded.model, anatomy, recipe.strategy, recipe.seed)  # type: ignore[arg-type]
    learns = {part.name: part.name == "head" or bool(adapted & set(part.modules)) for part in anatomy.parts}
    # The parts before the first adapter form a frozen prefix; behind it dropout works, and BatchNorm statistics,
    # which an adapter does not save, must not move.
    prefix = []
    for part in anatomy.parts:
        if learns[part.name]:
            break
        prefix.append(part)
    inner = model.get_base_model()
    names = {*modules_of(inner, prefix), *batch_norms(inner, outside=anatomy.head.modules)}
    still = tuple(f"base_model.model.{name}" for name in sorted(names))
    applied = Applied(model, anatomy, learns, _head_multiplier(recipe), still)
    applied.hold_still()
    return applied


def _head_multiplier(recipe: Recipe) -> float:
    return float(getattr(recipe.strategy, "head_lr_multiplier", 1.0))


_STRATEGIES: dict[str, Callable[[LoadedModel, Recipe], Applied]] = {
    "full": _everything,
    "scratch": _everything,
    "head": _head,
    "freeze": _freeze,
    "lora": _lora,
}
