"""The trials of a search, one after the other in this process; of several processes the first one asks the study."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from hf_finetune.advice.search_answers import Candidate, read_answers
from hf_finetune.advice.search_space import are_own, with_values
from hf_finetune.advice.search_study import Asked, Study, Tried
from hf_finetune.advice.search_words import trial_in_words
from hf_finetune.advice.trials import run_trials
from hf_finetune.console import is_main_process, say
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes.keys import known_keys
from hf_finetune.training.agreement import as_the_first, together
from hf_finetune.training.onlooker import EndedEarly, looked_on_by

if TYPE_CHECKING:
    from hf_finetune.advice.search_folder import SearchFolder
    from hf_finetune.advice.trials import Runner
    from hf_finetune.recipes import Recipe

Found = TypeVar("Found")
_ONE_RUN = {"seeds": "1", "evaluation.cross_validation": "null"}  # the winner has as many as the recipe says
_warned: set[str] = set()  # a warning that every trial gives is told once
_FAILURES = 3  # more trials than are wanted may fail, by so many


def on_first(step: Callable[[], Found]) -> Found:
    """What the first process finds, on all of them.

    Raises:
        UserError: that of the first process, on all.
    """
    return as_the_first(together(step if is_main_process() else lambda: None))  # type: ignore[arg-type, return-value]


def recipe_of(recipe: Recipe, values: dict[str, str], folder: SearchFolder, number: int) -> Recipe:
    """The recipe of a trial: one run, which does not read the test split and pushes nothing.

    Raises:
        RecipeError: the values do not go together.
    """
    own = {"output_dir": str(folder.run_of(number)), "evaluation.test": "false", "hub.push": "false"}
    alone = {key: text for key, text in _ONE_RUN.items() if key in known_keys()}
    return with_values(recipe, {**values, **alone, **own})


def run_until(study: Study | None, folder: SearchFolder, recipe: Recipe, trials: int, finetune: Runner) -> None:
    """Run trials until so many are complete or pruned.

    Args:
        study: None on processes other than the first.
        folder: of the search, locked.
        recipe: as it was given.
        trials: that count.
        finetune: `hf_finetune.finetune`, or a partial of it.

    Raises:
        UserError: the recipe as it was given fails, or nearly all trials do.
        Stopped, KeyboardInterrupt: a signal; the same call goes on.
    """
    while True:
        asked = on_first(lambda: _asked(study, folder, trials))
        if asked is None:
            return
        ended = _result_of(study, folder, asked, recipe, finetune)
        if asked.number == 0 and ended.state == "failed":  # it is not told to the study: mended, it begins anew
            raise UserError(f"The recipe as it was given cannot be run: {ended.reason}")

        def tell(ended: Tried = ended) -> None:
            assert study is not None
            told = study.tell(ended, _direction(folder, ended))
            folder.clear([ended.number])
            say(trial_in_words(told, study.tried(), study.best(), trials))

        on_first(tell)


def _asked(study: Study | None, folder: SearchFolder, trials: int) -> Asked | None:
    assert study is not None
    tried = study.tried()
    failed = [each for each in tried if each.state == "failed"]
    if len(tried) - len(failed) >= trials:
        return None
    if len(failed) > trials + _FAILURES:
        raise UserError(f"{len(failed)} trials have failed, the last of them: {failed[-1].reason}")
    folder.clear(each.number for each in tried)
    return study.ask()


def _result_of(study: Study | None, folder: SearchFolder, asked: Asked, recipe: Recipe, finetune: Runner) -> Tried:
    number, values = asked.number, asked.values
    twin = on_first(lambda: _twin(study, values, recipe))
    if twin is not None:
        return replace(twin, number=number, values=values, seconds=0.0, same_as=twin.number)
    failed = Tried(number, "failed", values, None)
    try:
        trial_recipe = recipe_of(recipe, values, folder, number)
    except RecipeError as error:
        return replace(failed, reason=str(error))

    def report(share: float, score: float, greater_is_better: bool) -> bool:
        def ask() -> bool:
            assert study is not None
            return study.report(number, share, score, greater_is_better)

        return on_first(ask)

    started = time.monotonic()
    answers = folder.answers_of(number)
    name = f"trial {number}"
    with looked_on_by(Candidate(report, answers)):
        done = run_trials({name: trial_recipe}, finetune, ended=lambda trial, place: None, warned=_warned)[name]
    seconds = round(time.monotonic() - started, 1)
    if isinstance(done.fault, EndedEarly):
        return Tried(number, "pruned", values, None, seconds)
    if done.run is None:
        return replace(failed, seconds=seconds, reason=done.reason or "no reason given")
    score = on_first(lambda: read_answers(answers).score)
    if math.isnan(score):
        return replace(failed, seconds=seconds, reason="its validation score has no value")
    return Tried(number, "complete", values, score, seconds)


def _twin(study: Study | None, values: dict[str, str], recipe: Recipe) -> Tried | None:
    """A complete trial of the same values, the recipe's own among them: running them again would give the same."""
    assert study is not None
    complete = [each for each in study.tried() if each.state == "complete" and each.same_as is None]
    given = next((each for each in complete if each.number == 0), None)
    if given is not None and values and are_own(values, recipe):
        return given
    return next((each for each in complete if each.number > 0 and each.values == values), None)


def _direction(folder: SearchFolder, ended: Tried) -> bool:
    if ended.state != "complete":
        return True
    number = ended.number if ended.same_as is None else ended.same_as
    return read_answers(folder.answers_of(number)).greater_is_better
