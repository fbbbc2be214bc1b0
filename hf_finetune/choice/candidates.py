"""The strategies that advice compares, each as a recipe that would run: its settings, rate and epochs."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import ValidationError

from hf_finetune.recipes.pairs import PairsError
from hf_finetune.recipes.rates import default_learning_rate
from hf_finetune.recipes.schema import Recipe
from hf_finetune.recipes.strategy_section import CANDIDATES
from hf_finetune.recipes.yaml_text import Plain, read_value

# Steps below which the recipe's batch has not taught much, and most epochs that a few rows are read: with 100 images
# three epochs are nine steps. A head on kept features costs next to nothing, and takes more.
_STEPS = {"head": 300}
_USUAL_STEPS, _LEAST_EPOCHS = 100, 3
_MOST_EPOCHS = {"head": 60}
_USUAL_MOST_EPOCHS = 25
# At its usual 1e-3 a new linear head is far from its minimum after so few steps: with 90 rows it scored 0.38 on AG News
# (0.72 at 1e-2, as its probe), 0.53 (0.60) on SST-2, 0.67 (0.80) on ants and bees.
_HEAD_RATE = 1e-2
_BATCH = 32
_BIT_STEPS = ((20_000, 500), (500_000, 10_000))  # rows below which so many steps; 20,000 for more


def usual_epochs(kind: str, rows: int, batch: int = _BATCH) -> int:
    """Epochs that a strategy gets where a recipe names none: three, and more where that would be few steps.

    Args:
        kind: of the strategy.
        rows: of training.
        batch: rows of a step.
    """
    steps = max(1, rows // batch)
    wanted = math.ceil(_STEPS.get(kind, _USUAL_STEPS) / steps)
    return int(min(max(wanted, _LEAST_EPOCHS), _MOST_EPOCHS.get(kind, _USUAL_MOST_EPOCHS)))


def bit_steps(rows: int) -> int:
    """Steps of BiT's size rule, which fine-tunes everything (Kolesnikov et al. 2020, arXiv:1912.11370, section 3.3)."""
    return next((steps for most, steps in _BIT_STEPS if rows < most), 20_000)


def batch_of(recipe: Recipe, rows: int, processes: int = 1) -> int:
    """Rows of a step, of all processes together."""
    values = recipe.training.values()
    given = values.get("per_device_train_batch_size") or _BATCH
    return min(int(given) * int(values.get("gradient_accumulation_steps") or 1) * processes, rows)


def epochs_of(kind: str, recipe: Recipe, rows: int, processes: int = 1) -> float:
    """The recipe's own epochs (or those of its steps); where it names none, `usual_epochs`."""
    values, batch = recipe.training.values(), batch_of(recipe, rows, processes)
    if values.get("max_steps", -1) > 0:
        return float(values["max_steps"]) * batch / rows
    given = values.get("num_train_epochs")
    return float(given) if given is not None else float(usual_epochs(kind, rows, batch))


def candidates(recipe: Recipe, rows: int, blocks: int, processes: int = 1) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Recipes by kind of strategy, and for those that the recipe's other settings forbid, why.

    A recipe whose own strategy is among them keeps its settings and its rate; the others take their defaults; a linear
    head learns at `_HEAD_RATE`.

    Args:
        recipe: what is asked for.
        rows: of training.
        blocks: of the model.
        processes: that will train.
    """
    own = recipe.strategy
    batch = batch_of(recipe, rows, processes)
    kinds = own.candidates if own.kind == "auto" else CANDIDATES
    found: dict[str, Recipe] = {}
    refused: dict[str, str] = {}
    for kind in kinds:
        values = recipe.written()
        if kind != own.kind:
            values["strategy"] = _settings(kind, blocks)
            values["training"].pop("learning_rate", None)
        if "num_train_epochs" not in values["training"] and values["training"].get("max_steps", -1) <= 0:
            values["training"]["num_train_epochs"] = usual_epochs(kind, rows, batch)
        try:
            candidate = Recipe.model_validate(values)
        except ValidationError as fault:
            refused[kind] = _reason(fault)
            continue
        if candidate.strategy.kind == "freeze" and candidate.strategy.train_blocks > blocks:
            refused[kind] = f"strategy.train_blocks={candidate.strategy.train_blocks}, and the model has {blocks}"
            continue
        quick = kind == "head" != own.kind and recipe.model.head.kind == "linear"
        values["training"].setdefault("learning_rate", _HEAD_RATE if quick else default_learning_rate(candidate))
        found[kind] = Recipe.model_validate(values)
    return found, refused


def _settings(kind: str, blocks: int) -> dict[str, Any]:
    return {"kind": kind, "train_blocks": max(1, blocks // 2)} if kind == "freeze" else {"kind": kind}


def _reason(fault: ValidationError) -> str:
    """What a recipe's own check says, without pydantic's words around it."""
    for error in fault.errors(include_url=False):
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, PairsError):
            return str(cause.faults[0])
    return str(fault.errors(include_url=False)[0]["msg"])


def pairs_of(candidate: Recipe) -> list[str]:
    """What to write behind `recipe=` for this strategy."""
    strategy, values = candidate.strategy, candidate.training.values()
    own = strategy.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    if strategy.kind == "freeze":
        own["train_blocks"] = strategy.train_blocks  # also where it is the default: the file may have another
    pairs = [f"strategy={strategy.kind}", *(f"strategy.{name}={_as_text(value)}" for name, value in own.items())]
    pairs += [f"training.learning_rate={values['learning_rate']:g}"] if "learning_rate" in values else []
    if "num_train_epochs" in values:
        pairs.append(f"training.num_train_epochs={float(values['num_train_epochs']):g}")
    return pairs


def _as_text(value: Any) -> str:
    """A value as the command line reads it."""
    return value if isinstance(value, str) and isinstance(read_value(value), Plain) else json.dumps(value)
