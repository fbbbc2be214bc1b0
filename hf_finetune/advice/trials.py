"""Many runs, one after the other, in this process: what comparison, search and repetition are made of.

Each is an ordinary run in its own output_dir, so that the command that was interrupted, given again, takes the
finished ones as they are and goes on with the one that was being trained.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune import stopping
from hf_finetune.advice.trials_together import several_processes, told_by_all
from hf_finetune.console import muted, say
from hf_finetune.disk import DiskError
from hf_finetune.errors import RecipeError, UserError

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe
    from hf_finetune.runs import Run

# `finetune`, or a partial of it with its options; given by the caller, which stands on a higher floor.
Runner = Callable[["Recipe"], "Run"]


@dataclass(frozen=True)
class Trial:
    """One run of several.

    Args:
        name: its key in the plan.
        recipe: what it was to do.
        run: what it has left; None where it failed.
        reason: why it failed, in words.
        seconds: that it took in this start of the command.
        found: whether it had been finished before this start.
        fault: what it failed of.
    """

    name: str
    recipe: Recipe
    run: Run | None = None
    reason: str = ""
    seconds: float = 0.0
    found: bool = False
    fault: Exception | None = None

    def score(self, split: str, metric: str | None = None) -> float | None:
        """A score of the finished run; None where it failed, has no such split, or the metric has no value there.

        Args:
            split: `validation` or `test`.
            metric: its name; the one that chose the checkpoint if None.
        """
        scores = {} if self.run is None else self.run.metrics.get(split, {})
        name = metric or self.metric
        value = scores.get(name) if name is not None else None
        return value if isinstance(value, (int, float)) else None

    @property
    def metric(self) -> str | None:
        """The metric that chose the checkpoint: the recipe's, else the first measured one; None of a failed run."""
        if self.run is None:
            return None
        from hf_finetune.publish.save import best_metric

        return best_metric(self.recipe, self.run.metrics)


def run_trials(
    plan: Mapping[str, Recipe],
    finetune: Runner,
    *,
    began: Callable[[str, int], None] | None = None,
    ended: Callable[[Trial, int], None] | None = None,
    passed_over: Callable[[str], str | None] | None = None,
    warned: set[str] | None = None,
) -> dict[str, Trial]:
    """Run every recipe in its own output_dir, on every process alike.

    Finished runs are taken as they are, interrupted ones go on (`resume=auto`, which is `finetune`'s default). What the
    runs say is muted, warnings are told once; one line a trial is said unless `ended` is given. Data that they have in
    common is read once; features of frozen blocks are shared as they always are.

    Args:
        plan: name -> recipe, in the order in which they run; no two may have the same output_dir.
        finetune: `hf_finetune.finetune`, or a partial of it.
        began: called with the name and the place (from 0) of each before it starts.
        ended: called with each that has ended, and its place, in place of the line.
        passed_over: asked before each starts; words say why it is not to be run at all, and become its reason.
        warned: warnings that were told before; new ones are added.

    Returns:
        name -> trial, in the plan's order.

    Raises:
        RecipeError: two trials have the same output_dir.
        DiskError: a disk is full or gone: the trials after it would fail too. So do LostProcess, and of several
            processes whatever does not befall all of them alike.
        Stopped, KeyboardInterrupt: a signal; the same call goes on.
    """
    from hf_finetune.data.read_once import read_once

    _check_places(plan)
    warned = set() if warned is None else warned
    done: dict[str, Trial] = {}
    with stopping.listening(), read_once():
        for place, (name, recipe) in enumerate(plan.items()):
            if began is not None:
                began(name, place)
            reason = passed_over(name) if passed_over is not None else None
            if reason is not None:
                done[name] = Trial(name, recipe, reason=reason)
            else:
                with muted(warned):
                    done[name] = _one(name, recipe, finetune)
                _free_memory()
            if ended is not None:
                ended(done[name], place)
            else:
                say(f"{place + 1} of {len(plan)}  {in_words(done[name])}")
    return done


def in_words(trial: Trial, split: str = "validation") -> str:
    """A trial in one line.

    Args:
        trial: that has ended.
        split: whose score is told.
    """
    if trial.run is None:
        return f"{trial.name}: failed: {trial.reason.splitlines()[0] if trial.reason else 'no reason given'}"
    value = trial.score(split)
    score = f"{trial.metric} {'undefined' if value is None else f'{value:.4f}'} ({split})"
    return f"{trial.name}: {score}, {'finished before' if trial.found else f'{trial.seconds:.0f} s'}"


def at_most(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe with so many minutes of training; what it would train beyond them it does not train.

    Raises:
        RecipeError: its strategy cannot be cut short.
    """
    return recipe.with_overrides(f"training.max_minutes={minutes:g}")


def _one(name: str, recipe: Recipe, finetune: Runner) -> Trial:
    from pathlib import Path

    found = (Path(recipe.output_dir) / "metrics.json").is_file()
    started = time.monotonic()
    run: Run | None = None
    fault: Exception | None = None
    try:
        run = finetune(recipe)
    except UserError as error:
        fault = error
    except Exception as error:
        # One model or library that stumbles ends one trial; of several processes the others may wait in the middle.
        if several_processes():
            raise
        fault = error
    if isinstance(fault, _ends_all()):
        raise fault
    seconds = time.monotonic() - started
    reason = told_by_all(None if fault is None else _reason(fault))
    if reason is None:
        return Trial(name, recipe, run, seconds=seconds, found=found)
    if fault is not None:
        # Their frames hold the model, and its memory.
        fault.__traceback__ = fault.__context__ = fault.__cause__ = None
    return Trial(name, recipe, None, reason, seconds, fault=fault)


def _reason(fault: Exception) -> str:
    return str(fault) if isinstance(fault, UserError) else f"{type(fault).__name__}: {fault}"


def _ends_all() -> tuple[type[Exception], ...]:
    """What the next trial would meet too, or what has befallen one process of several alone."""
    from hf_finetune.training.out_of_memory import OutOfMemory
    from hf_finetune.training.told import LostProcess

    return (DiskError, LostProcess, *((OutOfMemory,) if several_processes() else ()))


def _check_places(plan: Mapping[str, Recipe]) -> None:
    from pathlib import Path

    from hf_finetune.errors import Fault

    seen: dict[Path, str] = {}
    faults = []
    for name, recipe in plan.items():
        other = seen.setdefault(Path(recipe.output_dir).resolve(), name)
        if other != name:
            faults.append(Fault("output_dir", f"{other} and {name} both have {recipe.output_dir}"))
    if faults:
        raise RecipeError(faults)


def _free_memory() -> None:
    """The model of the run that has ended is not there any more when the next one is measured."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
