"""`strategy=auto`: one process measures, all take what it has chosen, and the run's folder remembers it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune import stopping, training
from hf_finetune.choice.advise import advise_on, check_askable
from hf_finetune.choice.words import as_dict, shortly
from hf_finetune.console import say
from hf_finetune.data import load_data
from hf_finetune.disk import disk_errno, disk_error
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole
from hf_finetune.publish.save import without_nan
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.agreement import as_the_first, by_the_first
from hf_finetune.training.folder import ADVICE, RunFolder, is_begun
from hf_finetune.training.precision import launcher_settings
from hf_finetune.training.same_run import differences

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.choice.advise import Advice


def decide(
    recipe: Recipe,
    data: Dataset | DatasetDict | None,
    resume: str,
    accept_changes: bool,
    trust_remote_code: bool,
) -> Recipe:
    """The recipe with the strategy, rate and epochs that were chosen for it.

    What was chosen, and for which recipe, lies in `advice.json` in the run's folder from before the run's first step,
    so that a run that was interrupted goes on with it, whatever a second measurement would say.

    Raises:
        UserError: as `advise`, or the folder holds another run.
    """
    place = Path(recipe.output_dir) / ADVICE
    with stopping.listening(), launcher_settings():
        _meet(recipe, place.parent)
        chosen = as_the_first(training.together(_chosen_before, place, recipe, accept_changes))
        if chosen is None:
            training.check_schedules(recipe, math.inf)  # of whatever rate will be chosen
            folder = training.together(RunFolder, recipe, resume, accept_changes)  # another run's is refused now
            try:
                training.together(folder.open)  # and two that begin at once do not choose for each other
                chosen = _choose(recipe, data, trust_remote_code, place)
            finally:
                folder.close()
    return with_chosen(recipe, chosen)


def with_chosen(recipe: Recipe, chosen: dict[str, Any]) -> Recipe:
    """The recipe with `{"strategy": ..., "training": ...}` in the place of what auto leaves open."""
    values = recipe.written()
    values["strategy"] = chosen["strategy"]
    values["training"] |= chosen["training"]
    return Recipe.model_validate(values)


def as_begun_in(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with what `strategy=auto` has chosen for a run in a folder; as it is where nothing is chosen there.

    Args:
        recipe: that run's, or one of another seed.
        folder: of the run.

    Raises:
        UserError: it was chosen among other candidates, or in another share of the time.
    """
    chosen = _chosen_before(folder / ADVICE, recipe, False) if recipe.strategy.kind == "auto" else None
    return recipe if chosen is None else with_chosen(recipe, chosen)


def seconds_of_choice(folder: Path) -> float:
    """Seconds that `strategy=auto` has measured for a run in a folder; 0 where it has not."""
    try:
        return float(json.loads((folder / ADVICE).read_text(encoding="utf-8"))["advice"]["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _meet(recipe: Recipe, folder: Path) -> None:
    """The process made ready as for a run, and where there are several, known to each other."""
    training.quiet_libraries()
    training.use_every_core()
    training.keep_token_from_workers()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        training.meet_anew()
        values = {**recipe.written(), "strategy": {"kind": "full"}}
        training.build_arguments(Recipe.model_validate(values), 1e-4, folder / "checkpoints", "no")


def _chosen_before(place: Path, recipe: Recipe, accept_changes: bool) -> dict[str, Any] | None:
    """What the folder's run began with; None where it is to be measured: also for another recipe without a run yet.

    Raises:
        UserError: the run was chosen among other candidates, or in another share of the time. What else differs is
            told by `RunFolder`, as of every run.
    """
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        chosen = {name: dict(found["chosen"][name]) for name in ("strategy", "training")}
        different = differences(Recipe.model_validate(found["asked"]), recipe)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if different and not is_begun(place.parent):
        return None
    lines = [line for line in different if line.startswith("strategy.")]
    if lines and not accept_changes:
        shown = "\n".join(f"  {line}" for line in lines)
        raise UserError(
            f"output_dir={place.parent} holds a run whose strategy was chosen otherwise; it is never overwritten. What "
            f"differs:\n{shown}\nGive another output_dir, or delete the folder."
        )
    return chosen


def _choose(recipe: Recipe, data: Dataset | DatasetDict | None, trust_remote_code: bool, place: Path) -> dict[str, Any]:
    """Measured by the first process, written down by it, and told to the others, who wait."""
    check_askable(recipe)
    say("strategy=auto: looking at the data before training")
    task = training.together(load_data, recipe, data)
    processes = int(os.environ.get("WORLD_SIZE", "1"))

    def measured() -> dict[str, Any]:
        share = recipe.strategy.share  # type: ignore[union-attr]
        advice = advise_on(recipe, task, share, trust_remote_code=trust_remote_code, processes=processes)
        say(shortly(advice))
        chosen = chosen_of(advice)
        _write_down(place, {"asked": recipe.written(), "chosen": chosen, "advice": as_dict(advice)})
        return chosen

    return by_the_first(measured)


def _write_down(place: Path, told: dict[str, Any]) -> None:
    try:
        write_whole(place, json.dumps(without_nan(told), indent=1) + "\n")
    except OSError as fault:
        number = disk_errno(fault)
        if number is None:
            raise
        raise disk_error(f"{place} cannot be written", number, place.parent) from fault


def chosen_of(advice: Advice) -> dict[str, Any]:
    """What `with_chosen` takes, of an advice."""
    values = advice.best.training.values()
    kept = {name: values[name] for name in ("learning_rate", "num_train_epochs") if name in values}
    return {"strategy": advice.best.strategy.model_dump(mode="json"), "training": kept}
