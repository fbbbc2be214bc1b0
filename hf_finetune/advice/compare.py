"""`hf-finetune compare`: the same work done several ways at equal budgets, and how sure it is which is best."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.advice.compare_plan import Plan, plan_of
from hf_finetune.advice.compare_scores import results_of
from hf_finetune.advice.compare_table import TrialTable, table_in_words
from hf_finetune.advice.seeds import gathered
from hf_finetune.advice.trials import Runner, Trial, run_trials
from hf_finetune.console import is_main_process, say
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole
from hf_finetune.prefix_store import release

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe
    from hf_finetune.runs import Run

__all__ = ["PAGE", "RESULTS", "Plan", "compare", "plan_of"]

PAGE, RESULTS = "compare.html", "compare.json"


def compare(plan: Plan, finetune: Runner) -> dict[str, Any]:
    """Run everything that has not been run, then compare; on every process alike.

    All runs share the data, the features of frozen blocks and what was measured of this machine, as runs do anyway.
    Interrupted, also by a kill, the same command takes what is finished and goes on with the rest.

    Args:
        plan: from `plan_of`.
        finetune: `hf_finetune.finetune`, or a partial of it.

    Returns:
        what compare.json holds, see `results_of`; compare.html shows it.

    Raises:
        UserError: not one run has finished; or see `run_trials`.
    """
    with _only_one(plan.folder):
        trials = _run(plan, finetune)
        cells = _by_cell(plan, trials)
        if not any(trial.run for trial in trials.values()):
            reasons = "\n".join(f"  {trial.name}: {trial.reason}" for trial in trials.values())
            raise UserError(f"None of the {len(trials)} runs has finished:\n{reasons}")
        cells = {name: _over_seeds(plan.cells[name], own) for name, own in cells.items()}
        return _written(plan, cells)


def _run(plan: Plan, finetune: Runner) -> dict[str, Trial]:
    whole = plan.trials()
    failed: set[str] = set()
    table = TrialTable(list(whole), {name: place[0] for name, place in whole.items()})

    def ended(trial: Trial, place: int) -> None:
        if trial.run is None and whole[trial.name][1] == plan.seeds[0]:
            failed.add(whole[trial.name][0])
        table.ended(trial, place)

    def passed_over(name: str) -> str | None:
        cell = whole[name][0]
        return f"not tried: {cell} failed with seed {plan.seeds[0]}" if cell in failed else None

    say(plan.in_words())
    for note in plan.notes:
        say(f"note: {note}")
    recipes = {name: recipe for name, (_, _, recipe) in whole.items()}
    first = {recipe.output_dir: Path(plan.cells[cell].output_dir) for cell, _, recipe in whole.values()}

    def settled(recipe: Recipe) -> Run:
        """`strategy=auto` chooses once for a combination, as it does for `seeds: N`: other seeds repeat that choice."""
        from hf_finetune.choice.auto import as_begun_in

        return finetune(as_begun_in(recipe, first[recipe.output_dir]))

    with table:
        return run_trials(recipes, settled, began=table.began, ended=ended, passed_over=passed_over)


def _by_cell(plan: Plan, trials: Mapping[str, Trial]) -> dict[str, dict[int, Trial]]:
    cells: dict[str, dict[int, Trial]] = {name: {} for name in plan.cells}
    for name, (cell, seed, _) in plan.trials().items():
        cells[cell][seed] = trials[name]
    return cells


def _over_seeds(recipe: Recipe, own: dict[int, Trial]) -> dict[int, Trial]:
    """A cell, with its scores over seeds in the metrics.json of its first run, as `seeds: N` writes them."""
    first = next(iter(own.values()))
    if len(own) < 2 or first.run is None:
        return own
    from dataclasses import replace

    run = gathered(recipe, own, tell=False)
    return {**own, next(iter(own)): replace(first, run=run)}


def _written(plan: Plan, cells: Mapping[str, Mapping[int, Trial]]) -> dict[str, Any]:
    """Results, page and words, by rank 0; the others wait, and are told the results."""
    from hf_finetune.training.agreement import as_the_first, together

    found: dict[str, Any] = {}

    def write() -> None:
        from hf_finetune.publish.report_trials import write_page
        from hf_finetune.publish.save import without_nan

        found.update(without_nan(results_of(plan, cells)))
        text = json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False)
        write_whole(plan.folder / RESULTS, text + "\n")
        folders = [Path(cell["folder"]) for cell in found["cells"]]
        write_page(found, folders, plan.folder / PAGE)
        say(table_in_words(found))
        say(f"{plan.folder / PAGE}")

    together(write if is_main_process() else lambda: None)
    return as_the_first(found)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """No second comparison in the same folder at the same time."""
    if not is_main_process():
        yield
        return
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another comparison is running in {folder}: wait for it, or give another output_dir."
        ) from None
    try:
        yield
    finally:
        release(lock)
