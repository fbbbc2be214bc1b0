"""What must be said beside a comparison's table: where its runs were not done under the same conditions after all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.publish.about import read_about
from hf_finetune.publish.report_words import duration
from hf_finetune.recipes.staging import is_staged

if TYPE_CHECKING:
    from hf_finetune.advice.compare_plan import Plan
    from hf_finetune.runs import Run

NOT_SAME = "They were not tested on the same rows and labels, so the runs are not compared row by row."
NO_TEST = (
    "There is no test split that all have: these are validation scores, by which each run chose its checkpoint; they "
    "flatter."
)
_LONGER = 1.1  # times the budget


def notes_on(
    plan: Plan, done: Mapping[str, Mapping[int, Run]], told: Sequence[Mapping[str, Any]], split: str, same: bool
) -> list[str]:
    """Sentences for the user.

    Args:
        plan: what was to be run.
        done: the finished runs, by cell and seed.
        told: of each cell what `results_of` tells.
        split: whose scores are told.
        same: whether all have answered the same test rows.
    """
    notes = [NO_TEST] if split != "test" else [] if same else [NOT_SAME]
    runs = [run for own in done.values() for run in own.values()]
    notes += _unlike("number of processes", _by_cell(done, lambda run: run.metrics["train"].get("processes")),
                     "the batch of all together was not the same")  # fmt: skip
    notes += _unlike("machine", _by_cell(done, lambda run: read_about(run.path).get("machine")),
                     "their times cannot be compared")  # fmt: skip
    return [*notes, *(_of_the_budget(plan, told) if plan.minutes is not None and runs else [])]


def _by_cell(done: Mapping[str, Mapping[int, Run]], fact: Any) -> dict[Any, list[str]]:
    """The cells by what is true of their runs."""
    found: dict[Any, list[str]] = {}
    for name, own in done.items():
        for run in own.values():
            if (value := fact(run)) is not None and name not in found.setdefault(value, []):
                found[value].append(name)
    return found


def _unlike(what: str, cells: Mapping[Any, Sequence[str]], then: str) -> Iterable[str]:
    if len(cells) > 1:
        each = "; ".join(f"{value}: {', '.join(names)}" for value, names in cells.items())
        yield f"Not all were trained with the same {what}, so that {then} ({each})."


def _of_the_budget(plan: Plan, told: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    assert plan.minutes is not None
    short = [cell["name"] for cell in told if cell["cut_short"]]
    staged = [name for name in short if is_staged(plan.cells[name])]
    if short:
        also = f" Of {', '.join(staged)} the last stages are shorter, or missing." if staged else ""
        yield (
            f"Cut short by the budget: {', '.join(short)}. Their learning rate had not come down yet: with no more "
            f"epochs than the time allows (training.num_train_epochs) they would likely score better in it.{also}"
        )
    allowed = 60.0 * plan.minutes
    fitted = [c for c in told if c["epochs"] is None and c["training_seconds"] > _LONGER * allowed]
    if fitted:
        each = ", ".join(f"{cell['name']} ({duration(cell['training_seconds'])})" for cell in fitted)
        yield f"Longer than the budget: {each}. What is fitted at once cannot be cut short."
    before = [cell for cell in told if cell["seconds"] - cell["training_seconds"] > allowed]
    if before:
        each = ", ".join(f"{cell['name']} ({duration(cell['seconds'])} in all)" for cell in before)
        yield (
            f"More time beside training than the budget gives to it: {each}. Loading, features of frozen blocks and "
            "the final scores are not in it."
        )
