"""What cannot be done with training rows that stay in their shards (`data.streaming`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

GROUPS_OF_STREAM = (
    "which rows are of one group is only known when all were read, so that with data.streaming=true no share of train "
    "can be held out by groups: name splits in data.validation and data.test_split"
)
_ALL = "needs a look at all training rows before training, which data.streaming=true saves"


def faults_of_stream(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    if not recipe.data.streaming:
        return
    yield from _data(recipe)
    yield from _training(recipe)
    if recipe.cache.prefix == "on" or recipe.cache.views is not None:
        name = "views" if recipe.cache.prefix != "on" else "prefix"
        yield (
            f"cache.{name}",
            "keeps features of all rows, and data.streaming=true is for more of them: remove it",
        )
    if recipe.distill is not None:
        yield "distill", f"{_ALL}: the teacher answers them once. Remove it, or say data.streaming=false"


def _data(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if recipe.tasks:
        yield "data.streaming", "is for one label column, and the recipe has tasks: use false"
    if data.clean is not None:
        yield "data.clean", f"{_ALL}: remove it, or clean the data when its shards are written"
    if data.group is not None and any(isinstance(share, float) for share in (data.validation, data.test_split)):
        yield "data.group", GROUPS_OF_STREAM
    if data.fold is not None:
        yield "data.fold", f"{_ALL}: name a validation split"
    if isinstance(data.dataset, str) and data.dataset.startswith("package:"):
        yield "data.streaming", f"{data.dataset} is small and lies in memory: use false"


def _training(recipe: Recipe) -> Iterator[tuple[str, str]]:
    loss, strategy = recipe.loss, recipe.strategy
    if loss.class_weights is not None:
        yield "loss.class_weights", f"are scaled by the number of rows of each class, which {_ALL}: remove them"
    if loss.sampling == "balanced":
        yield "loss.sampling", f"balanced {_ALL}: use shuffle, or balance the shards when they are written"
    if loss.logit_adjustment:
        yield "loss.logit_adjustment", f"{_ALL}, to count the classes: remove it"
    if strategy.kind == "features":
        yield "strategy.kind", f"features {_ALL}: use head, whose steps take the rows as they come"
    if getattr(strategy, "solver", "adamw") == "lbfgs":
        yield "strategy.solver", f"lbfgs {_ALL}: use adamw"
    if getattr(strategy, "sweep", None) is not None:
        yield "strategy.sweep", f"trains several heads on kept features, which {_ALL}: give one rate"
    order = recipe.training.values().get("train_sampling_strategy")
    if order not in (None, "random"):
        yield "training.train_sampling_strategy", f"{order} {_ALL}: use random"
    if getattr(recipe.evaluation, "cross_validation", None):
        yield "evaluation.cross_validation", f"{_ALL}: name a validation split"
