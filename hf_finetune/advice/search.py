"""`hf-finetune search`: which values of a recipe's keys score best on validation, and whether that is more than luck.

The first trial is the recipe as it was given. Trials never read the test split; the winner is run once more, as an
ordinary run, and scored on it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.advice.search_folder import SearchFolder
from hf_finetune.advice.search_reading import read_space
from hf_finetune.advice.search_space import with_values
from hf_finetune.console import is_main_process, say
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole

if TYPE_CHECKING:
    from hf_finetune.advice.search_gain import Gain
    from hf_finetune.advice.search_study import Study, Tried
    from hf_finetune.advice.trials import Runner
    from hf_finetune.recipes import Recipe
    from hf_finetune.runs import Run

ENGINES = ("optuna", "ray")


@dataclass(frozen=True)
class Searched:
    """What a search has found.

    Args:
        tried: every trial, on the first process.
        winner: the best of them.
        metric: of validation, that chose it.
        gain: over the recipe as it was given; None where the winner is that, or there is no interval.
        recipe: the winner's, as best.yaml has it.
        run: the winner's, with the test scores.
    """

    tried: list[Tried]
    winner: Tried
    metric: str
    gain: Gain | None
    recipe: Recipe
    run: Run | None = None


def search(
    recipe: Recipe,
    finetune: Runner,
    *,
    space: str | None = None,
    trials: int = 20,
    minutes: float | None = None,
    engine: str = "optuna",
    out: str | Path | None = None,
) -> Searched:
    """Search, or go on with a search that was interrupted.

    Args:
        recipe: that is searched around; the first trial.
        finetune: `hf_finetune.finetune`, or a partial of it.
        space: what may change, see `read_space`; the strategy's own if None.
        trials: that count: complete ones and those given up early.
        minutes: of training a trial, at most.
        engine: optuna, in this process; ray, on the machines of a Ray cluster.
        out: folder of the search; the recipe's output_dir with `_search` behind it if None.

    Raises:
        UserError: the space does not fit the recipe, the folder is another search's, a library is missing, or the
            recipe itself cannot be run or leaves its strategy open.
        Stopped, KeyboardInterrupt: a signal; the same call goes on.
    """
    if engine not in ENGINES:
        raise UserError(f"engine={engine}: must be one of {', '.join(ENGINES)}")
    if trials < 2:
        raise UserError(f"trials={trials}: the first one is the recipe as it is, so there must be 2 at least")
    if recipe.strategy.kind == "auto":
        raise UserError(
            "strategy=auto chooses by measurements, which every trial would take anew, the winner's run too: name a "
            "strategy (hf-finetune advise says which), or search among some: 'space={strategy: [head, lora, full]}'"
        )
    if minutes is not None:
        from hf_finetune.advice.trials import at_most

        recipe = at_most(recipe, minutes)
    allowed = read_space(space, recipe)
    from hf_finetune.advice.search_optuna import imported
    from hf_finetune.advice.search_study import Study
    from hf_finetune.advice.search_trial import on_first, run_until
    from hf_finetune.training.agreement import together

    imported()
    folder = SearchFolder(out or f"{recipe.output_dir.rstrip('/')}_search")
    if engine == "ray":
        from hf_finetune.advice.search_ray import check_ray

        check_ray()
    _meet(recipe)
    try:
        on_first(lambda: folder.open(recipe, allowed))
        say(f"search in {folder.path}: {trials} trials, the first one the recipe as it is. What may change:")
        say(allowed.in_words())
        study = together(lambda: Study(folder.study, allowed, recipe) if is_main_process() else None)
        if on_first(lambda: _has_room(study, folder, trials)):
            if engine == "ray":
                from hf_finetune.advice.search_ray import run_on_ray

                assert study is not None
                run_on_ray(study, folder, recipe, trials, finetune)
            else:
                run_until(study, folder, recipe, trials, finetune)
        return _concluded(study, folder, recipe, finetune)
    finally:
        folder.close()


def _meet(recipe: Recipe) -> None:
    """Of several processes each knows of the others from here on, as it would in a run."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    from hf_finetune import training
    from hf_finetune.training.precision import launcher_settings

    training.quiet_libraries()
    training.meet_anew()
    with launcher_settings():
        training.build_arguments(recipe, 1e-3, Path(recipe.output_dir), training.choose_precision("auto").name)


def _has_room(study: Study | None, folder: SearchFolder, trials: int) -> bool:
    """Whether there are trials to be run; after the test split was read nothing may be chosen any more."""
    assert study is not None
    lacking = trials - sum(each.state != "failed" for each in study.tried())
    if lacking > 0 and folder.test_is_read:
        raise UserError(
            f"The search in {folder.path} is finished: its winner was scored on the test split, and what is chosen "
            f"after that would be chosen by it. Give out=DIR for a search of {trials} trials."
        )
    return lacking > 0


def _concluded(study: Study | None, folder: SearchFolder, recipe: Recipe, finetune: Runner) -> Searched:
    """The winner, said, written and scored on the test split."""
    from hf_finetune.advice.search_trial import on_first
    from hf_finetune.runs import Run

    tried, winner, metric, gain = on_first(lambda: _found(study, folder, recipe))
    best = with_values(recipe, {**winner.values, "output_dir": str(folder.best)})
    searched = Searched(tried, winner, metric, gain, best)

    def write() -> bool:
        folder.clear_another_winner(best)
        write_whole(folder.best_recipe, best.to_yaml())
        _write(folder, searched)
        return folder.has_all_of(best)

    if on_first(write):
        run = Run.load(folder.best)
        say(f"{folder.best} holds the winner's run, scored before.")
    else:
        has_test = recipe.evaluation.test and recipe.data.test_split is not None and not folder.test_is_read
        also = ": now the test split is read, for the first and only time" if has_test else ""
        say(f"The winner once more, in {folder.best}{also}.")
        run = finetune(best)
    searched = replace(searched, run=run)
    if is_main_process():
        _write(folder, searched)
    say(f"{folder.best_recipe}: hf-finetune train recipe={folder.best_recipe} output_dir=...")
    return searched


def _found(study: Study | None, folder: SearchFolder, recipe: Recipe) -> tuple[list[Tried], Tried, str, Gain | None]:
    from hf_finetune.advice.search_answers import read_answers
    from hf_finetune.advice.search_gain import gain_of
    from hf_finetune.advice.search_words import found_in_words

    assert study is not None
    tried, winner = study.tried(), study.best()
    if winner is None:
        raise UserError("No trial is complete, so there is no winner: " + (tried[-1].reason if tried else ""))
    own = [each for each in tried if each.state == "complete" and each.same_as is None]
    outcomes = {each.number: read_answers(folder.answers_of(each.number)) for each in own}
    gain = gain_of(outcomes, winner.number, seed=recipe.seed) if winner.number > 0 and 0 in outcomes else None
    metric = outcomes[winner.number].metric
    say(found_in_words(tried, winner, metric, gain))
    return tried, winner, metric, gain


def _write(folder: SearchFolder, found: Searched) -> None:
    """results.json."""
    from hf_finetune.advice.search_words import written
    from hf_finetune.publish.save import without_nan

    values: dict[str, Any] = {
        "metric": found.metric,
        "winner": found.winner.number,
        "as_given": found.tried[0].score,
        "best": found.winner.score,
        "gain": None if found.gain is None else found.gain.written(),
        "test": None if found.run is None else found.run.metrics.get("test"),
        "trials": [written(each) for each in found.tried],
    }
    write_whole(folder.results, json.dumps(without_nan(values), indent=1, ensure_ascii=False) + "\n")
