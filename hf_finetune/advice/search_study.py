"""The study of a search: Optuna's own, in a SQLite file, so that a search that was killed goes on.

Which values a trial gets depends on the seed, its number and the trials that have ended before it, and on nothing else:
a search that was interrupted tries what it would have tried.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_finetune.advice.search_optuna import imported, pruner, sampler, was_killed
from hf_finetune.errors import UserError
from hf_finetune.recipes.load import from_text
from hf_finetune.training.same_run import differences

if TYPE_CHECKING:
    from hf_finetune.advice.search_space import Space
    from hf_finetune.recipes import Recipe

NAME = "search"
_STEPS = 1000  # of a run's whole length


@dataclass(frozen=True)
class Asked:
    """A trial to be run.

    Args:
        number: from 0, the recipe as it was given; the same again where a trial was interrupted.
        values: by key, as on the command line.
    """

    number: int
    values: dict[str, str]


@dataclass(frozen=True)
class Tried:
    """A trial that has ended.

    Args:
        number: of the trial.
        state: pruned is one that was given up at a validation in the middle.
        values: by key, as on the command line.
        score: of validation, in the metric's own direction; of a pruned one the last.
        seconds: that it took.
        same_as: the trial of the same values whose result is its own too.
        reason: why it failed.
        node: machine of a Ray cluster that it ran on.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    values: dict[str, str]
    score: float | None
    seconds: float = 0.0
    same_as: int | None = None
    reason: str = ""
    node: str = ""


class Study:
    """Asked on one process alone.

    Args:
        file: of SQLite.
        space: what may change.
        recipe: as it was given: the first trial.

    Raises:
        UserError: optuna is not installed, the file is none of its studies, or another search's.
    """

    def __init__(self, file: Path, space: Space, recipe: Recipe) -> None:
        optuna = imported()
        self._space, self._recipe = space, recipe
        self._running: dict[int, Any] = {}  # Optuna's trials, by number
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            self._study = optuna.create_study(
                study_name=NAME, storage=storage, direction="maximize", load_if_exists=True
            )
            own = self._is_own()
            if own:
                self._do_again()
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{file} is damaged, or no study of Optuna's: {why}. Put an intact copy of it in its place, or delete "
                "it: then the search begins anew."
            ) from error
        if not own:
            raise UserError(
                f"{file} is the study of another recipe or space. Put this search's own in its place, or delete it: "
                "then the search begins anew."
            )

    def _is_own(self) -> bool:
        """Whether the study is of this recipe and space; a new one is told so."""
        notes = self._study.user_attrs
        if not notes and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("space", self._space.written())
            self._study.set_user_attr("recipe", self._recipe.to_yaml())
            return True
        recipe = from_text(notes["recipe"]) if "recipe" in notes else None
        same_space = notes.get("space") == json.loads(json.dumps(self._space.written()))
        return same_space and (recipe is None or not differences(recipe, self._recipe))

    def _do_again(self) -> None:
        """Trials that were running when the search was killed have failed, and are asked for again."""
        states = imported().trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self._study.tell(trial.number, state=states.FAIL)
            if "number" in trial.user_attrs:
                number = trial.user_attrs["number"]
                whole = number == 0 or "values" in trial.user_attrs  # else it was killed while it was asked for
                self._study.enqueue_trial(trial.params if whole else {}, user_attrs={"number": number})

    def ask(self) -> Asked:
        """The next trial."""
        shipped = self._space.shipped(self._recipe)
        if not self._known():
            self._study.enqueue_trial(shipped, user_attrs={"number": 0})
        number = self._upcoming()
        self._study.sampler = sampler(self._recipe.seed, number)
        trial = self._running[number] = self._study.ask()
        trial.set_user_attr("number", number)
        if number == 0:  # as it was given, also where a value of it is not among those that are tried
            self._space.only(shipped).chosen(trial, self._recipe)
            return Asked(0, {})
        values = self._space.chosen(trial, self._recipe)
        trial.set_user_attr("values", values)
        return Asked(number, values)

    def report(self, number: int, share: float, score: float, greater_is_better: bool) -> bool:
        """A validation score in the middle of a trial's run; whether to give the trial up.

        By asynchronous successive halving (Li et al. 2020, arXiv:1810.05934): rungs at the first validation and at
        threefold shares of the run. The recipe as it was given is never given up.
        """
        step = round(_STEPS * share)
        first = self._study.user_attrs.get("first_step")
        if first is None:
            self._study.set_user_attr("first_step", first := max(1, step))
        self._study.set_user_attr("greater_is_better", greater_is_better)
        trial = self._running[number]
        trial.report(score if greater_is_better else -score, step)
        self._study.pruner = pruner(first)
        return bool(trial.should_prune()) and number > 0

    def tell(self, ended: Tried, greater_is_better: bool = True) -> Tried:
        """How a trial has ended; gives it as `tried` does."""
        states = imported().trial.TrialState
        trial = self._running.pop(ended.number)
        for name in ("seconds", "same_as", "reason", "node"):
            trial.set_user_attr(name, getattr(ended, name))
        if ended.state == "complete" and ended.score is not None:
            self._study.set_user_attr("greater_is_better", greater_is_better)
            self._study.tell(trial, ended.score if greater_is_better else -ended.score)
        else:
            self._study.tell(trial, state=states.PRUNED if ended.state == "pruned" else states.FAIL)
        return next(each for each in self.tried() if each.number == ended.number)

    def best(self) -> Tried | None:
        """The complete trial with the best score; of equals the earliest. None where there is none."""
        complete = [each for each in self.tried() if each.state == "complete" and each.score is not None]
        sign = self._sign
        return max(complete, key=lambda each: (sign * (each.score or 0.0), -each.number), default=None)

    def tried(self) -> list[Tried]:
        """The trials that have ended, by number."""
        states = imported().trial.TrialState
        names = {states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed"}
        sign, found = self._sign, []
        for trial in self._known():
            if trial.state not in names:
                continue
            value = trial.value
            if trial.state == states.PRUNED and value is None and trial.intermediate_values:
                value = trial.intermediate_values[max(trial.intermediate_values)]
            notes = trial.user_attrs
            found.append(
                Tried(
                    number=notes["number"],
                    state=names[trial.state],  # type: ignore[arg-type]
                    values=notes.get("values", {}),
                    score=None if value is None or math.isnan(value) else sign * value,
                    seconds=notes.get("seconds", 0.0),
                    same_as=notes.get("same_as"),
                    reason=notes.get("reason", ""),
                    node=notes.get("node", ""),
                )
            )
        return sorted(found, key=lambda each: each.number)

    @property
    def _sign(self) -> float:
        return 1.0 if self._study.user_attrs.get("greater_is_better", True) else -1.0

    def _known(self) -> list[Any]:
        """Optuna's trials without those that were killed: these are done again under the same number."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if not was_killed(trial)]

    def _upcoming(self) -> int:
        """The number of the next trial: of one that is to be done again, else the next free one."""
        waiting = [trial for trial in self._known() if trial.state.name == "WAITING"]
        if waiting:
            return int(waiting[0].user_attrs["number"])
        return 1 + max((trial.user_attrs.get("number", -1) for trial in self._known()), default=-1)
