"""A recipe's strategy, applied to a loaded model: which parts learn, which are held still, and at what rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_finetune.model.surgery import still_batch_norms
from hf_finetune.strategy.adapters import add_adapters, b_matrix, head_name, plain_name
from hf_finetune.strategy.frozen import (
    batch_norms,
    hold_still,
    modules_of,
    release,
    remember_learning,
    require_gradients,
)
from hf_finetune.strategy.param_groups import parameter_groups
from hf_finetune.strategy.stage import LearningStage
from hf_finetune.strategy.stages import gradual, listed, lp_ft
from hf_finetune.strategy.table import strategy_table, who_learns
from hf_finetune.strategy.who_learns import stage_for

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Anatomy
    from hf_finetune.model.checkpoint import LoadedModel
    from hf_finetune.recipes.schema import Recipe


@dataclass
class Applied:
    """What a strategy made of a model.

    Args:
        model: the model to train; a PeftModel where adapters were added, else the one that was given.
        anatomy: of the model before adapters.
        stages: who learns in each stage, and how fast.
    """

    model: nn.Module
    anatomy: Anatomy
    stages: tuple[LearningStage, ...]

    def __post_init__(self) -> None:
        self._held: tuple[str, ...] = ()
        remember_learning(self.model, self.learning)
        if len(self.stages) == 1:
            self.enter(0)
        else:
            # Whoever learns at any time, so that several processes agree on what to synchronise.
            require_gradients(self.model, self.learning)

    def enter(self, index: int) -> None:
        """From now on that stage's parameters learn, and what is frozen in it is in eval mode for good.

        `model.train()` does not wake what is held still. May be called again.
        """
        stage = self.stages[index]
        require_gradients(self.model, stage.multipliers.keys())
        for name in self._held:
            release(self.model.get_submodule(name))
        for name in stage.still:
            hold_still(self.model.get_submodule(name))
        self._held = stage.still

    @property
    def learning(self) -> frozenset[str]:
        """Names of the parameters that learn in any stage."""
        return frozenset(name for stage in self.stages for name in stage.multipliers)

    @property
    def learns(self) -> dict[str, bool]:
        """For every part, by name, whether anything in it learns in any stage."""
        return {part.name: not self.learning.isdisjoint(self.names_in(part.name)) for part in self.anatomy.parts}

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with "name", "params", "lr", "rates" and "weight_decay"; see `param_groups`."""
        return parameter_groups(self, lr, weight_decay)

    def table(self, lr: float) -> str:
        """The table that is printed before training: part, parameters, learns, rate."""
        return strategy_table(self, lr)

    def in_words(self, index: int) -> str:
        """Who learns in a stage: "head", "blocks 11-12, head", "everything"."""
        return who_learns(self, index)

    def part_name(self, parameter: str) -> str:
        """The part that a parameter of `model` belongs to; an adapter belongs to the part of the layer it adapts.

        Args:
            parameter: as in `model.named_parameters()`.
        """
        return self.anatomy.part_of(plain_name(parameter, self._names)).name

    def names_in(self, part: str) -> set[str]:
        """Names of the parameters of `model` that belong to a part."""
        known = self._names
        return {
            name
            for name, _ in self.model.named_parameters()
            if self.anatomy.part_of(plain_name(name, known)).name == part
        }

    @property
    def _names(self) -> frozenset[str]:
        return frozenset(name for part in self.anatomy.parts for name in part.parameters)


def apply_strategy(loaded: LoadedModel, recipe: Recipe) -> Applied:
    """Freezes, adapts and holds still what the recipe's strategy says; with lora, the model is adapted in place.

    Raises:
        UserError: more blocks shall learn than there are, or what is named matches nothing.
    """
    for name in still_batch_norms(loaded.model, loaded.anatomy, recipe.model.batch_norm):
        hold_still(loaded.model.get_submodule(name))  # every stage keeps what is held still before it
    return _STRATEGIES[recipe.strategy.kind](loaded, recipe)


def _one_stage(loaded: LoadedModel, recipe: Recipe) -> Applied:
    rate = 0.0 if recipe.strategy.kind == "features" else None  # fitted by scikit-learn, not by steps
    stage = stage_for(recipe.strategy, loaded, recipe, learning_rate=rate)  # type: ignore[arg-type]
    return Applied(loaded.model, loaded.anatomy, (stage,))


def _several_stages(expand: Callable[..., tuple[LearningStage, ...]], loaded: LoadedModel, recipe: Recipe) -> Applied:
    return Applied(loaded.model, loaded.anatomy, expand(recipe.strategy, loaded, recipe))


def _adapters(loaded: LoadedModel, recipe: Recipe) -> Applied:
    anatomy, settings = loaded.anatomy, recipe.strategy
    model, adapted = add_adapters(loaded.model, anatomy, settings, recipe.seed)  # type: ignore[arg-type]
    learns = {part.name: part.name == "head" or bool(adapted & set(part.modules)) for part in anatomy.parts}
    # The parts before the first adapter form a frozen prefix; behind it dropout works, and BatchNorm statistics,
    # which an adapter does not save, must not move.
    prefix = []
    for part in anatomy.parts:
        if learns[part.name]:
            break
        prefix.append(part)
    inner = model.get_base_model()
    head = set(anatomy.head.modules)
    names = {*modules_of(inner, prefix), *(name for name in batch_norms(inner) if head_name(name) not in head)}
    still = tuple(f"base_model.model.{name}" for name in sorted(names))
    # Only LoRA has second matrices (LoRA+).
    b_multiplier = getattr(settings, "b_lr_multiplier", 1.0)
    multipliers = {
        name: b_multiplier if b_matrix(name) else 1.0
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return Applied(model, anatomy, (LearningStage(multipliers, still),))


_STRATEGIES: dict[str, Callable[[LoadedModel, Recipe], Applied]] = {
    **dict.fromkeys(("full", "scratch", "head", "freeze", "bitfit", "norms", "features"), _one_stage),
    "lora": _adapters,
    "peft": _adapters,
    "lp_ft": partial(_several_stages, lp_ft),
    "gradual": partial(_several_stages, gradual),
    "stages": partial(_several_stages, listed),
}
