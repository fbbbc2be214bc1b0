"""Optuna, and which parts of it a search uses: TPE draws the values, ASHA says which trials are given up."""

from __future__ import annotations

import warnings
from typing import Any

from hf_finetune.errors import UserError

AT_RANDOM = 6  # trials before TPE has enough of them to learn from
REDUCTION = 3  # ASHA: of those that have come as far, about one in so many goes on


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
