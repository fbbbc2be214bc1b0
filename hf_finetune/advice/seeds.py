"""`seeds: N`: the same recipe with several seeds, on the same rows, and what they score together.

The run of the recipe's own seed is the ordinary run in output_dir; each further one is a run in output_dir/seeds/SEED.
Which rows are trained on, held out and tested stays as the recipe's seed chose them (`data.seed`): what differs is the
new head, the order of the samples and their random changes. So the spread is that of training, and all seeds share
what is kept of the data and of frozen blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.advice.trials import Trial, run_trials
from hf_finetune.console import is_main_process, say

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe
    from hf_finetune.runs import Run

FOLDER = "seeds"


def at_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one seed of several: an ordinary run on the rows that the recipe's own seed chooses.

    Args:
        recipe: of the run of its own seed.
        seed: another one, or its own.
    """
    from hf_finetune.recipes.hub_section import Hub

    if seed == recipe.seed:
        return recipe.model_copy(update={"seeds": 1})
    return recipe.model_copy(
        update={
            "seed": seed,
            "seeds": 1,
            "data": recipe.data.model_copy(update={"seed": recipe.data_seed}),
            "hub": Hub(),
            "expected": None,
            "output_dir": str(Path(recipe.output_dir) / FOLDER / str(seed)),
        }
    )


def with_more_seeds(recipe: Recipe, run: Run, finetune: Callable[[Recipe], Run]) -> Run:
    """The finished run of the recipe's seed, after runs of its other seeds, with `seeds` in its metrics.json.

    Args:
        recipe: with `seeds` above 1.
        run: of its own seed.
        finetune: makes one run of a recipe.

    Raises:
        Stopped, DiskError: see `run_trials`; the same command goes on.
    """
    others = range(recipe.seed + 1, recipe.seed + recipe.seeds)
    plan = {f"seed {seed}": at_seed(recipe, seed) for seed in others}
    more = f"{len(plan)} more seeds ({others[0]} to {others[-1]})" if len(plan) > 1 else f"one more seed ({others[0]})"
    say(f"{more} on the same rows, in {run.path / FOLDER}:")
    trials = run_trials(plan, finetune)
    return gathered(recipe, {recipe.seed: Trial("", recipe, run), **dict(zip(others, trials.values(), strict=True))})


def gathered(recipe: Recipe, trials: Mapping[int, Trial], *, tell: bool = True) -> Run:
    """Write `seeds` into metrics.json of the first run, draw its card and page again, and say the scores.

    Args:
        recipe: of the first seed.
        trials: by seed, the first one finished.
        tell: say the scores.

    Returns:
        the first run, read anew.
    """
    from hf_finetune.training.agreement import together

    first = next(iter(trials.values())).run
    assert first is not None

    def write() -> None:
        from hf_finetune.publish.more_scores import write_section
        from hf_finetune.publish.seed_scores import seeds_in_words, seeds_section

        runs = {seed: (trial.run.path, trial.run.metrics) for seed, trial in trials.items() if trial.run is not None}
        failed = {seed: trial.reason for seed, trial in trials.items() if trial.run is None}
        section = seeds_section(runs, failed, recipe.evaluation.bootstrap)
        if tell:
            say(seeds_in_words(section))
        write_section(first.path, "seeds", section)

    together(write if is_main_process() else lambda: None)
    return first.again()
