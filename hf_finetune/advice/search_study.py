"""The study of a search: Optuna's own, in a SQLite file, so that a search that was killed goes on.

Which values a trial gets depends on the seed, its number and the trials that have ended before it, and on nothing else:
a search that was interrupted tries what it would have tried.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.advice.search_space import Space
    from hf_finetune.recipes import Recipe

NAME = "search"
AT_RANDOM = 6  # trials before TPE has enough of them to learn from
REDUCTION = 3  # ASHA: of those that have come as far, about one in so many goes on
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
        UserError: optuna is not installed, or the file is none of its studies.
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
        except Exception as error:
            raise UserError(f"{file} is no study of Optuna's that can be gone on with: {error}") from error
        self._do_again()

    def _do_again(self) -> None:
        """Trials that were running when the search was killed have failed, and are asked for again."""
        states = imported().trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self._study.tell(trial.number, state=states.FAIL)
            if "number" in trial.user_attrs:
                self._study.enqueue_trial(trial.params, user_attrs={"number": trial.user_attrs["number"]})

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


def was_killed(trial: Any) -> bool:
    """Whether a trial has failed because its process was killed: one that failed by itself has a reason."""
    return bool(trial.state.name == "FAIL" and not trial.user_attrs.get("reason"))


def sampler(seed: int, number: int) -> Any:
    """TPE for one trial (Bergstra et al. 2011; arXiv:2304.11127), over keys that not every trial has."""
    optuna = imported()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=(1_000_003 * seed + number) % 2**32, n_startup_trials=AT_RANDOM, multivariate=True, group=True
        )


def pruner(first_step: int) -> Any:
    """ASHA, in which trials that were killed do not count twice."""
    base: Any = imported().pruners.SuccessiveHalvingPruner

    class Halving(base):  # type: ignore[misc]
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(super().prune(_WithoutKilled(study), trial))

    return Halving(min_resource=first_step, reduction_factor=REDUCTION)


class _WithoutKilled:
    """A study as a pruner sees it."""

    def __init__(self, study: Any) -> None:
        self._whole = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def get_trials(self, **options: Any) -> list[Any]:
        return [trial for trial in self._whole.get_trials(**options) if not was_killed(trial)]


def imported() -> Any:
    """The module optuna, quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("hf-finetune search needs optuna: pip install 'hf_finetune[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
