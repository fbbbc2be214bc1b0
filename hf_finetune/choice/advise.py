"""Advice before a run: what to train, at which rate and for how long, measured in a fraction of the run's own time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_finetune.choice.candidates import batch_of, candidates, epochs_of
from hf_finetune.choice.cost import Pace, Rows, seconds_of
from hf_finetune.choice.look import LEAST_ROWS, measure
from hf_finetune.choice.measures import Measures
from hf_finetune.choice.pace import as_in_a_run, measure_pace
from hf_finetune.choice.verdict import Option, options_of
from hf_finetune.data import load_data
from hf_finetune.errors import UserError
from hf_finetune.model import load_pretrained
from hf_finetune.recipes.schema import LinearHead
from hf_finetune.strategy import apply_strategy
from hf_finetune.training.random_changes import image_augment

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import Recipe

SHARE = 0.1
LONGEST = 900.0  # seconds of measurements: several processes that wait for one give up after half an hour
_UNMEASURED = ("lp_ft", "full", "lora", "head", "freeze", "scratch")  # where there is no time to look


@dataclass
class Advice:
    """What to do, and what it was found by.

    Args:
        recipe: what was asked for.
        measures: of the data; None where the share of the time did not allow any.
        options: the first is the one to take.
        recipes: of every option, by kind, with its rate and its epochs.
        refused: strategies that this recipe or model does not allow, and why.
        pace: of this machine.
        train_rows: of the recipe.
        full_seconds: that full fine-tuning would take on this machine.
        seconds: that the advice took, without reading the data and loading the checkpoint.
        share: of `full_seconds` that it was allowed.
    """

    recipe: Recipe
    measures: Measures | None
    options: list[Option]
    recipes: dict[str, Recipe]
    pace: Pace
    train_rows: int
    full_seconds: float
    share: float
    seconds: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The strategy to take."""
        return self.options[0].kind

    @property
    def best(self) -> Recipe:
        """The recipe with the strategy to take."""
        return self.recipes[self.kind]


def advise(
    recipe: Recipe,
    *,
    share: float = SHARE,
    data: Dataset | DatasetDict | None = None,
    trust_remote_code: bool = False,
) -> Advice:
    """Look at a part of the training rows through the frozen checkpoint, and say which strategy to take.

    Nothing is trained but probes. Two training steps of a few rows are timed; from then on all that is done is bounded
    by `share` of the time that full fine-tuning would take on this machine. Reading the data and loading the
    checkpoint, which a run does too, are not counted. Where every training row is read, their last features stay in
    the cache of prefixes for a run of the head.

    Args:
        recipe: names data and checkpoint; its epochs, rate and strategy's settings are kept where it gives them.
        share: most time, as a share of a full fine-tuning's.
        data: a data set in memory, in place of `recipe.data.dataset`.
        trust_remote_code: run code from the Hub that a checkpoint brings.

    Raises:
        UserError: the data or the checkpoint cannot be used, the recipe has several tasks, or no strategy goes with it.
    """
    check_askable(recipe)
    return advise_on(recipe, load_data(recipe, data), share, trust_remote_code=trust_remote_code)


def check_askable(recipe: Recipe) -> None:
    """Raise a UserError where there is nothing that advice could measure."""
    if recipe.tasks:
        raise UserError(
            "Advice is for one label column, and this recipe has tasks: name a strategy yourself (full is usual)."
        )
    if getattr(recipe.data, "streaming", False):
        raise UserError(
            "Advice reads rows by their numbers, and data.streaming has none: ask with data.streaming=false."
        )


def advise_on(
    recipe: Recipe, task: TaskData, share: float, *, trust_remote_code: bool = False, processes: int = 1
) -> Advice:
    """The same for data that has been read; `processes` of them will train."""
    loaded = _load(recipe, task, trust_remote_code)
    with as_in_a_run(loaded.model, batch_of(recipe, len(task.train))):
        advice = _measured(recipe, task, loaded, share, processes)
    _leave_out_what_fails(advice, loaded)
    return advice


def _measured(recipe: Recipe, task: TaskData, loaded: LoadedModel, share: float, processes: int) -> Advice:
    began = time.perf_counter()
    rows = Rows(len(task.train), len(task.validation), 0 if task.test is None else len(task.test))
    recipes, refused = candidates(recipe, rows.train, len(loaded.anatomy.blocks), processes)
    if not recipes:
        raise UserError(f"No strategy goes with this recipe: {'; '.join(f'{k}: {why}' for k, why in refused.items())}.")
    epochs = epochs_of("full", recipe, rows.train, processes)
    pace = measure_pace(recipe, loaded, task.train, epochs, processes)
    full = seconds_of("full", pace, rows, epochs, kept=False, most=_most_training(recipe))
    left = min(share * full, LONGEST) - (time.perf_counter() - began)
    enough = left > LEAST_ROWS * (pace.read + pace.forward)
    head = recipes.get("head") if processes == 1 else None
    measures = measure(recipe, task, loaded, pace, left, head) if enough else None
    costs = {kind: _cost(kind, each, task, pace, rows) for kind, each in recipes.items()}
    options = _options(measures, costs, recipe)
    took = time.perf_counter() - began
    return Advice(recipe, measures, options, recipes, pace, rows.train, full, share, took, refused)


def _load(recipe: Recipe, task: TaskData, trust_remote_code: bool) -> LoadedModel:
    """As a run does, but with a plain head: a custom one is random, and says nothing of the checkpoint."""
    return load_pretrained(
        recipe.model.model_copy(update={"head": LinearHead()}),
        recipe.task,
        num_labels=task.labels.num_labels,
        label_names=task.labels.names,
        problem_type=task.labels.problem_type,
        seed=recipe.seed,
        trust_remote_code=trust_remote_code,
    )


def _cost(kind: str, recipe: Recipe, task: TaskData, pace: Pace, rows: Rows) -> float:
    kept = recipe.cache.prefix != "off" and image_augment(recipe, task) is None
    blocks = recipe.strategy.train_blocks if recipe.strategy.kind == "freeze" else 0
    epochs = epochs_of(kind, recipe, rows.train, pace.processes)
    return seconds_of(kind, pace, rows, epochs, kept=kept, blocks=blocks, most=_most_training(recipe))


def _most_training(recipe: Recipe) -> float:
    """Seconds after which a run's training ends."""
    return 60.0 * float(recipe.training.values().get("max_minutes") or math.inf)


def _options(measures: Measures | None, costs: dict[str, float], recipe: Recipe) -> list[Option]:
    if measures is None:
        return [Option(kind, costs[kind], None) for kind in _UNMEASURED if kind in costs]
    return options_of(measures, costs, recipe.task == "text-classification")


def _leave_out_what_fails(advice: Advice, loaded: LoadedModel) -> None:
    """Adapters do not go into every model, which only the model can tell; it is not used any more afterwards."""
    if "lora" not in advice.recipes:
        return
    try:
        apply_strategy(loaded, advice.recipes["lora"])
    except UserError as fault:
        advice.refused["lora"] = str(fault).splitlines()[0]
        del advice.recipes["lora"]
        advice.options[:] = [option for option in advice.options if option.kind != "lora"]
        if not advice.options:
            raise
