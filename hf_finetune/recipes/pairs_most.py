"""Sizes that no run needs: refused before memory is asked for, whoever has written the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

# Far above what anybody has used, far below what brings a machine down. The seed is as large as numpy takes it.
_MOST: dict[str, float] = {
    "seed": 2**32 - 1,
    "seeds": 1_000,
    "data.seed": 2**32 - 1,
    "model.in_channels": 4_096,
    "model.image_size": 16_384,
    "model.max_length": 4_194_304,
    "data.max_length": 4_194_304,
    "strategy.r": 65_536,
    "strategy.options.r": 65_536,
    "evaluation.bootstrap": 1_000_000,
    "cache.views": 10_000,
    "training.per_device_train_batch_size": 10_000_000,
    "training.per_device_eval_batch_size": 10_000_000,
    "training.gradient_accumulation_steps": 10_000_000,
    "training.dataloader_num_workers": 1_024,
    "training.dataloader_prefetch_factor": 10_000,
    "training.num_train_epochs": 10_000_000,
    "training.max_steps": 10**12,
}
_WIDEST = 1_000_000  # hidden layer of a head
_WEIGHTS = 2**31  # of a head's layer: 8 GB in fp32


def faults_of_sizes(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every number that is beyond all use."""
    for path, most in _MOST.items():
        value = _at(recipe, path)
        if isinstance(value, (int, float)) and value > most:
            yield path, f"{value:,} must be at most {int(most):,}"
    if recipe.seed <= _MOST["seed"] < recipe.seed + recipe.seeds - 1:
        yield "seeds", f"{recipe.seeds:,} from seed {recipe.seed:,} on go beyond {int(_MOST['seed']):,}: begin lower"
    hidden = getattr(recipe.model.head, "hidden", ())
    if max(hidden, default=0) > _WIDEST or any(one * other > _WEIGHTS for one, other in pairwise(hidden)):
        yield "model.head.hidden", f"{list(hidden)[:8]} makes a head larger than any: layers of at most {_WIDEST:,}"


def _at(recipe: Any, path: str) -> Any:
    for name in path.split("."):
        recipe = recipe.get(name) if isinstance(recipe, dict) else getattr(recipe, name, None)
    return recipe
