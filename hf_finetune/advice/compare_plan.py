"""What a comparison will run: every combination of its axes with every seed, checked before anything trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.advice.seeds import at_seed
from hf_finetune.console import muted
from hf_finetune.errors import Fault, RecipeError, UserError
from hf_finetune.recipes.budget import minutes_of
from hf_finetune.recipes.grid import MOST, Cell, axes_of, cells_of
from hf_finetune.recipes.staging import total_epochs

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

_LINE = "command line"


@dataclass(frozen=True)
class Plan:
    """Everything that is compared.

    Args:
        title: the recipe's name as it was given.
        folder: of the comparison; each combination has its own in there.
        cells: name -> recipe of its first seed.
        seeds: of each.
        minutes: of training that each run has at most; None where all have the recipe's epochs.
        notes: what went because something else was chosen, for the user.
    """

    title: str
    folder: Path
    cells: dict[str, Recipe]
    seeds: tuple[int, ...]
    minutes: float | None
    notes: tuple[str, ...] = ()

    def trials(self) -> dict[str, tuple[str, int, Recipe]]:
        """Every run by its name: its cell, seed and recipe. Seeds are outermost, so that all cells are seen early."""
        several = len(self.seeds) > 1
        return {
            f"{cell}, seed {seed}" if several else cell: (cell, seed, at_seed(recipe, seed))
            for seed in self.seeds
            for cell, recipe in self.cells.items()
        }

    def in_words(self) -> str:
        """What will be done, in two lines."""
        count, seeds = len(self.cells), self.seeds
        several = f"{count} x {len(seeds)} seeds ({seeds[0]} to {seeds[-1]}) = " if len(seeds) > 1 else ""
        names = " | ".join(self.cells)
        return (
            f"comparing {several}{count * len(seeds)} runs of {self.title}: {names}\n"
            f"{self.budget_in_words()}; in {self.folder}"
        )

    def budget_in_words(self) -> str:
        """What every run has."""
        if self.minutes is not None:
            return f"equal budgets: at most {self.minutes:g} minutes of training each (budget=)"
        epochs = {_epochs(recipe) for recipe in self.cells.values()}
        if len(epochs) == 1:
            return f"equal budgets: the same {epochs.pop()} each"
        return f"unequal budgets: {', '.join(sorted(epochs))} (budget=10min would make the minutes equal)"


def plan_of(name: str, pairs: Sequence[str], budget: str | None = None) -> Plan:
    """The plan of a command.

    Args:
        name: of the recipe, as `load_recipe` takes it.
        pairs: `key=value`; of an axis several values with commas between.
        budget: minutes of training for each run, such as `10min`, `90s` or `1h`; the recipe's epochs if None.

    Raises:
        RecipeError: everything wrong with the pairs, the combinations and their recipes at once.
        UserError: there is no such recipe, or a folder holds something else.
    """
    from hf_finetune.recipes.load import resolve

    axes, common, faults = axes_of(pairs)
    minutes = _minutes(budget, axes, common, faults)
    own = resolve(name).recipe
    kinds = {"strategy": own.strategy.kind, "model.head": own.model.head.kind}
    found = cells_of(axes, common, kinds)
    if not axes and not faults:
        faults.append(Fault("compare", "nothing differs: give an axis, such as strategy=head,lora,full", _LINE))
    elif len(found) > MOST:
        faults.append(Fault("compare", f"{len(found):,} combinations: at most {MOST}", _LINE))
        found = found[:1]
    recipes, notes = _recipes(name, found, minutes, faults)
    if faults:
        raise RecipeError(faults)
    first = next(iter(recipes.values()))
    given = any(pair.partition("=")[0].strip() == "output_dir" for pair in common)
    folder = Path(first.output_dir if given else f"{first.output_dir}-compare")
    cells = {
        cell.name: recipes[cell.name].model_copy(update={"output_dir": str(folder / cell.folder)}) for cell in found
    }
    seeds = tuple(range(first.seed, first.seed + first.seeds))
    plan = Plan(name, folder, cells, seeds, minutes, tuple(notes))
    _check_folders(plan)
    return plan


def _minutes(
    budget: str | None, axes: Mapping[str, Sequence[str]], common: Sequence[str], faults: list[Fault]
) -> float | None:
    if budget is None:
        return None
    if any(pair.startswith("training.max_minutes=") for pair in common) or "training.max_minutes" in axes:
        faults.append(Fault("budget", "and training.max_minutes are the same thing: give one of them", _LINE))
    minutes = minutes_of(budget)
    if minutes is None:
        faults.append(Fault("budget", f"'{budget}' must be minutes of training, such as 10min, 90s or 1.5h", _LINE))
    return minutes


def _recipes(
    name: str, cells: Sequence[Cell], minutes: float | None, faults: list[Fault]
) -> tuple[dict[str, Recipe], list[str]]:
    """The recipe of each combination; what is wrong with several of them is told once."""
    from hf_finetune.recipes.hub_section import Hub
    from hf_finetune.recipes.load import resolve

    budget = [] if minutes is None else [f"training.max_minutes={minutes!r}"]
    recipes: dict[str, Recipe] = {}
    wrong: dict[Fault, list[str]] = {}
    notes: list[str] = []
    for cell in cells:
        try:
            resolved = resolve(name, [*cell.pairs, *budget])
        except RecipeError as error:
            for fault in error.faults:
                wrong.setdefault(fault, []).append(cell.name)
            continue
        notes += [f"{cell.name}: {note}" for note in resolved.notes]
        recipes[cell.name] = resolved.recipe.model_copy(update={"hub": Hub(), "expected": None})
    for fault, where in wrong.items():
        named = "" if len(where) == len(cells) else f"{', '.join(where)}: "
        faults.append(Fault(fault.path, f"{named}{fault.message}", fault.origin))
    return recipes, notes


def _check_folders(plan: Plan) -> None:
    """Raise a UserError that tells of every folder in the way."""
    if not plan.folder.exists():
        return
    if (plan.folder / "metrics.json").is_file() or (plan.folder / "recipe.yaml").is_file():
        raise UserError(f"output_dir={plan.folder} holds a run; a comparison needs a folder of its own: give another.")
    in_the_way = []
    with muted(set()):
        for name, (cell, _, recipe) in plan.trials().items():
            fault = _of_folder(recipe, Path(plan.cells[cell].output_dir))
            in_the_way += [] if fault is None else [f"{name}: {fault}"]
    if in_the_way:
        raise UserError("\n".join(in_the_way))


def _of_folder(recipe: Recipe, first: Path) -> str | None:
    """Why a run cannot be made in its folder; `first` is that of its combination, for whose seed auto chooses."""
    from hf_finetune.choice.auto import as_begun_in
    from hf_finetune.training.folder import RunFolder

    try:
        RunFolder(as_begun_in(recipe, first))
    except UserError as fault:
        return str(fault)
    return None


def _epochs(recipe: Recipe) -> str:
    """How long a recipe trains, in words."""
    steps = recipe.training.values().get("max_steps") or 0
    if steps > 0:
        return f"{steps:,} steps"
    if recipe.strategy.kind == "auto" and recipe.training.values().get("num_train_epochs") is None:
        return "epochs that auto chooses"
    epochs = total_epochs(recipe)
    return f"{epochs:g} epoch{'s' * (epochs != 1)}"
