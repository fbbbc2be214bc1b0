"""`evaluation.cross_validation: K`: the same recipe K times, each without one fold of train, which it then predicts.

The ordinary run stays what output_dir holds; each fold is a run in output_dir/folds/NUMBER (`data.fold`). Every row of
train is so predicted once by a model that has not seen it, and the mean of the folds' models answers the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.advice.trials import run_trials
from hf_finetune.console import is_main_process, say, warn
from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe
    from hf_finetune.runs import Run

FOLDER = "folds"


def of_fold(recipe: Recipe, number: int) -> Recipe:
    """The recipe of one fold, from 1: an ordinary run that holds it out.

    Args:
        recipe: with `evaluation.cross_validation`.
        number: of the fold.
    """
    from hf_finetune.recipes.hub_section import Hub

    count = recipe.evaluation.cross_validation
    assert count is not None
    return recipe.model_copy(
        update={
            "seeds": 1,
            "data": recipe.data.model_copy(update={"fold": (number, count)}),
            "evaluation": recipe.evaluation.model_copy(update={"cross_validation": None}),
            "hub": Hub(),
            "expected": None,
            "output_dir": str(Path(recipe.output_dir) / FOLDER / str(number)),
        }
    )


def with_folds(recipe: Recipe, run: Run, finetune: Callable[[Recipe], Run], trust_remote_code: bool = False) -> Run:
    """The finished run, after the runs of its folds, with `cross_validation` in its metrics.json.

    Args:
        recipe: with `evaluation.cross_validation`.
        run: of the recipe itself.
        finetune: makes one run of a recipe.
        trust_remote_code: run the code of `evaluate:ID`.

    Raises:
        UserError: the run has another number of folds already.
        Stopped, DiskError: see `run_trials`; the same command goes on.
    """
    count = recipe.evaluation.cross_validation
    assert count is not None
    plan = {f"fold {number}": of_fold(recipe, number) for number in range(1, count + 1)}
    from hf_finetune.training.agreement import together

    together(_check_count, recipe, plan.values())
    say(f"{count} folds of train, in {run.path / FOLDER}:")
    trials = run_trials(plan, finetune)
    failed = [trial for trial in trials.values() if trial.run is None]
    if failed:  # a part of the rows is no out-of-fold prediction of all
        reasons = "; ".join(f"{trial.name}: {trial.reason.splitlines()[0]}" for trial in failed)
        warn(f"cross_validation is not scored: {len(failed)} of {count} folds failed ({reasons}).")
        return run
    done = {number: trial.run for number, trial in enumerate(trials.values(), start=1) if trial.run is not None}
    return _gathered(recipe, run, done, trust_remote_code)


def _check_count(recipe: Recipe, plan: Iterable[Recipe]) -> None:
    """Raise a UserError where the folders hold other folds: one of five is none of three."""
    from hf_finetune.recipes import load_recipe

    for fold in plan:
        file = Path(fold.output_dir) / "recipe.yaml"
        found = load_recipe(str(file)).data.fold if file.is_file() else fold.data.fold
        if found is not None and found != fold.data.fold:
            raise UserError(
                f"{Path(fold.output_dir).parent} holds the runs of {found[1]} folds, and evaluation.cross_validation="
                f"{recipe.evaluation.cross_validation}: give {found[1]} or another output_dir, or delete that folder."
            )


def _gathered(recipe: Recipe, run: Run, folds: dict[int, Run], trust_remote_code: bool) -> Run:
    """Write out_of_fold.parquet and the section of metrics.json, on rank 0; the run, read anew."""
    from hf_finetune.training.agreement import together

    def write() -> None:
        from hf_finetune.publish.fold_scores import folds_in_words, folds_section, write_out_of_fold
        from hf_finetune.publish.more_scores import write_section
        from hf_finetune.publish.seed_scores import names_of

        metrics = recipe.evaluation.metrics or names_of(next(iter(folds.values())).metrics["held_out"])
        write_out_of_fold(run.path, {number: fold.path for number, fold in folds.items()})
        section = folds_section(
            {number: (fold.path, fold.metrics) for number, fold in folds.items()},
            metrics,
            resamples=recipe.evaluation.bootstrap,
            seed=recipe.seed,
            trust_remote_code=trust_remote_code,
        )
        say(folds_in_words(section))
        write_section(run.path, "cross_validation", section)

    together(write if is_main_process() else lambda: None)
    return type(run).load(run.path, trust_remote_code=trust_remote_code)
