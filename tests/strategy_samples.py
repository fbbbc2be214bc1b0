"""Recipes over tiny checkpoints, and a few plain training steps, for tests of models and strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from headless_samples import TEXT_HEADLESS
from model_samples import TEXT_FAMILIES

from hf_finetune.model import LoadedModel, find_anatomy, load_pretrained
from hf_finetune.recipes.schema import Recipe
from hf_finetune.strategy import Applied


def recipe_for(
    family: str, checkpoint: Path | str, strategy: Any = "full", head: Any = "linear", seed: int = 0, **model: Any
) -> Recipe:
    """A recipe with that checkpoint, strategy, head and further keys of `model:`; its data is never read."""
    return Recipe.model_validate(
        {
            "task": "text-classification" if family in (*TEXT_FAMILIES, *TEXT_HEADLESS) else "image-classification",
            "model": {"checkpoint": str(checkpoint), "head": head, **model},
            "data": {"dataset": "none"},
            "strategy": strategy,
            "seed": seed,
        }
    )


def load(recipe: Recipe, names: list[str], problem_type: str = "single_label_classification") -> LoadedModel:
    """`load_pretrained` as a run calls it."""
    return load_pretrained(
        recipe.model,
        recipe.task,
        num_labels=len(names),
        label_names=names,
        problem_type=problem_type,
        seed=recipe.seed,
        scratch=recipe.strategy.kind == "scratch",
    )


def loaded_from(model: Any) -> LoadedModel:
    """A model that was built in memory, as if it had been loaded with a new head."""
    anatomy = find_anatomy(model)
    return LoadedModel(model, None, anatomy.head.parameters, None, anatomy)


def train_steps(applied: Applied, inputs: dict[str, torch.Tensor], lr: float = 0.01, steps: int = 3) -> None:
    """Some AdamW steps in train mode, as a Trainer would take them."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(applied.parameter_groups(lr, weight_decay=0.1))
    for _ in range(steps):
        applied.model.train()
        optimizer.zero_grad()
        applied.model(**inputs).loss.backward()
        optimizer.step()
