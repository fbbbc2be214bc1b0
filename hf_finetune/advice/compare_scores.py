"""What a comparison has found, as plain values: scores over seeds and test rows, paired tests, time, and a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.advice.compare_choice import chosen
from hf_finetune.advice.compare_notes import notes_on
from hf_finetune.choice.auto import seconds_of_choice
from hf_finetune.evaluation.metrics import greater_is_better
from hf_finetune.evaluation.paired import difference, holm
from hf_finetune.publish.constant_answer import constant_answer
from hf_finetune.publish.report_answers import SINGLE, TaskAnswers
from hf_finetune.publish.save import best_metric
from hf_finetune.publish.seed_scores import (
    answers_in,
    is_share_of_rows,
    names_of,
    on_the_same_rows,
    rows_of,
    seeds_section,
    split_of,
    task_of,
    tasks_of,
)
from hf_finetune.recipes.staging import total_epochs

if TYPE_CHECKING:
    from hf_finetune.advice.compare_plan import Plan
    from hf_finetune.advice.trials import Trial
    from hf_finetune.runs import Run

Cells = Mapping[str, Mapping[int, "Trial"]]  # cell -> seed -> trial
_UNDEFINED: dict[str, Any] = {"values": [], "mean": None, "std": None, "ci95": None}


def results_of(plan: Plan, cells: Cells) -> dict[str, Any]:
    """Everything that compare.json holds and the page shows.

    Args:
        plan: what was to be run.
        cells: what has come of it; at least one run has finished.

    Returns:
        `metric`, `split`, `samples`, `budget`, `baseline`, `cells`, `pairs`, `take`, `notes`, `failed`.
    """
    done = {name: {s: t.run for s, t in own.items() if t.run is not None} for name, own in cells.items()}
    done = {name: runs for name, runs in done.items() if runs}
    one = next(iter(next(iter(done.values())).values()))
    # Where some have no test split, what all have is validation.
    every = {split_of(run.metrics) for runs in done.values() for run in runs.values()}
    split = "test" if every == {"test"} else "validation"
    names = names_of(one.metrics[split])
    best = best_metric(plan.cells[next(iter(done))], one.metrics)
    metric = best if best in names else names[0]
    answers = {(name, seed): answers_in(run.path) for name, runs in done.items() for seed, run in runs.items()}
    same = split == "test" and on_the_same_rows(list(answers.values()))
    resamples = one.recipe.evaluation.bootstrap
    found = task_of(next(iter(answers.values())), metric)
    greater = greater_is_better(found[1] if found else metric)
    told = [_cell(plan, name, cells[name], runs, split, metric, resamples) for name, runs in done.items()]
    pairs = _pairs(done, split, metric, answers if same else {}, resamples) if same or split != "test" else []
    lone = len(plan.seeds) == 1
    return {
        "format": 1,
        "recipe": plan.title,
        "metric": metric,
        "greater_is_better": greater,
        "split": split,
        "samples": one.metrics[split].get("samples", 0),
        "seeds": list(plan.seeds),
        "budget": plan.budget_in_words(),
        "baseline": constant_answer(one.path, next(iter(answers.values())), metric) if same else None,
        "cells": told,
        "pairs": pairs,
        "take": chosen(told, pairs, metric=metric, greater=greater, lone=lone),
        "notes": notes_on(plan, done, told, split, same),
        "failed": [
            {"name": name, "seed": seed, "reason": trial.reason}
            for name, own in cells.items()
            for seed, trial in own.items()
            if trial.run is None
        ],
    }


def _cell(
    plan: Plan, name: str, own: Mapping[int, Trial], runs: Mapping[int, Run], split: str, metric: str, resamples: int
) -> dict[str, Any]:
    """One combination: scores over its seeds, and what they cost."""
    first = next(iter(runs.values()))
    if len(runs) > 1:
        kept = first.metrics.get("seeds") or {}
        kept = kept if (kept.get("seeds"), kept.get("split")) == (list(runs), split) else {}
        section = kept or seeds_section({s: (run.path, run.metrics) for s, run in runs.items()}, {}, resamples, split)
        metrics = section["metrics"]
    else:
        scores = first.metrics[split]
        metrics = {
            each: {"values": [scores[each]], "mean": scores[each], "std": None, "ci95": scores.get(f"{each}_ci95")}
            for each in names_of(scores)
        }
    train = [run.metrics["train"] for run in runs.values()]
    epochs = [value for one in train if (value := one.get("epochs")) is not None]
    recipe = plan.cells[name]
    may_end = plan.minutes is not None and recipe.evaluation.patience is None  # else it has ended early by itself
    whole = total_epochs(first.recipe)  # with what strategy=auto has chosen
    return {
        "name": name,
        "folder": recipe.output_dir,
        "seeds": list(runs),
        "score": metrics.get(metric, _UNDEFINED),  # other labels than the first one's have other metrics
        "metrics": metrics,
        "validation": _mean([run.metrics.get("validation", {}).get(metric) for run in runs.values()]),
        "seconds": round(median(one["total_seconds"] for one in train) + seconds_of_choice(first.path), 3),
        "training_seconds": median(one["seconds"] for one in train),
        "epochs": _mean(epochs) if epochs else None,
        "cut_short": may_end and any(value < whole - 0.01 for value in epochs),
        "failed": sum(trial.run is None for trial in own.values()),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _pairs(
    done: Mapping[str, Mapping[int, Run]],
    split: str,
    metric: str,
    answers: Mapping[tuple[str, int], Sequence[TaskAnswers]],
    resamples: int,
) -> list[dict[str, Any]]:
    """Every two of them, on the seeds that both have finished; corrected by Holm for all of these tests."""
    places = {key: place for place, key in enumerate(answers)}
    seed = min((seed for _, seed in answers), default=0)
    rows = rows_of(list(answers.values()), [metric], resamples, seed).get(metric) if answers else None
    a_run = next(iter(next(iter(done.values())).values()))
    tasks = tasks_of(a_run.path)
    share = is_share_of_rows(tasks, metric)
    samples = rows[1] if rows else a_run.metrics[split].get("samples", 0) if len(tasks) == 1 and resamples else 0
    found: list[dict[str, Any]] = []
    for one, other in combinations(done, 2):
        seeds = [seed for seed in done[one] if seed in done[other]]
        known: list[list[Any]] = [
            [done[name][seed].metrics[split].get(metric) for seed in seeds] for name in (one, other)
        ]
        if not seeds or any(value is None for column in known for value in column):
            continue
        drawn = [None if rows is None else rows[0][[places[name, seed] for seed in seeds]] for name in (one, other)]
        right = None
        if len(seeds) == 1 and answers:
            right = _right(answers[one, seeds[0]], answers[other, seeds[0]], metric)
        told = difference(known[0], known[1], drawn[0], drawn[1], samples, right, share=share)
        found.append({"first": one, "second": other, "difference": told.value, "ci95": told.ci95, "p": told.p,
                      "method": told.method, "seeds": seeds})  # fmt: skip
    for pair, corrected in zip(found, holm([pair["p"] for pair in found]), strict=True):
        pair["p_holm"] = corrected
    return found


def _right(
    one: Sequence[TaskAnswers], other: Sequence[TaskAnswers], metric: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where each is right, if the metric is the accuracy of single labels."""
    first, second = task_of(one, metric), task_of(other, metric)
    if first is None or second is None or first[1] != "accuracy" or first[0].problem != SINGLE:
        return None
    return first[0].decided == first[0].truth, second[0].decided == second[0].truth
