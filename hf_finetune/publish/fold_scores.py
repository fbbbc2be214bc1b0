"""Folds together: out-of-fold predictions and their scores, and the ensemble of the folds' models on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation.intervals import with_intervals
from hf_finetune.files import write_whole
from hf_finetune.publish.report_answers import MULTI, REGRESSION, SINGLE, TaskAnswers, read_answers
from hf_finetune.publish.save import HELD_OUT
from hf_finetune.publish.seed_scores import names_of

OUT_OF_FOLD = "out_of_fold.parquet"


def write_out_of_fold(folder: Path, folds: Mapping[int, Path]) -> None:
    """The held-out predictions of all folds as one table: the columns of predictions.parquet, and `fold`; by id.

    Args:
        folder: of the run.
        folds: number -> folder of its run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for number, place in folds.items():
        table = pq.read_table(place / HELD_OUT)
        tables.append(table.append_column("fold", pa.array([number] * len(table), type=pa.int64())))
    whole = pa.concat_tables(tables, promote_options="permissive").sort_by("id")
    whole = whole.replace_schema_metadata(tables[0].schema.metadata)
    write_whole(folder / OUT_OF_FOLD, lambda temporary: pq.write_table(whole, temporary))


def folds_section(
    folds: Mapping[int, tuple[Path, Mapping[str, Any]]],
    metrics: Sequence[str],
    *,
    resamples: int,
    seed: int,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """`cross_validation` of metrics.json, from the files of the folds' runs.

    The interval of an out-of-fold score is the bootstrap's over all rows, and holds for the rows. The folds' models
    share most of their training rows, so the spread of the folds does not measure how the score varies with these: no
    unbiased estimate of that exists (Bengio and Grandvalet 2004), and none is given.

    Args:
        folds: number -> folder and metrics.json of each fold's run.
        metrics: their names.
        resamples: of the bootstrap.
        seed: of the resamples.
        trust_remote_code: run the code of `evaluate:ID`.

    Returns:
        `folds`, `samples`, the metrics with `_ci95`, `by_fold` (metric -> the folds' values) and, where there is a test
        split, `ensemble` with the scores of the folds' mean answer.
    """
    problem = problem_of(next(iter(folds.values()))[0] / HELD_OUT)

    def scored(answers: Sequence[TaskAnswers]) -> dict[str, Any]:
        logits = np.concatenate([one.logits for one in answers])  # each by its own thresholds
        scores = with_intervals(
            logits,
            np.concatenate([one.truth for one in answers]),
            problem,  # type: ignore[arg-type]
            metrics,
            resamples=resamples,
            seed=seed,
            trust_remote_code=trust_remote_code,
        )
        return {**scores, "samples": len(logits)}

    first = next(iter(folds.values()))[1]["held_out"]
    section: dict[str, Any] = {
        "folds": len(folds),
        **scored([_read(place / HELD_OUT, problem) for place, _ in folds.values()]),
        "by_fold": {name: [told["held_out"].get(name) for _, told in folds.values()] for name in names_of(first)},
    }
    tests = [place / "predictions.parquet" for place, _ in folds.values()]
    if all(test.is_file() for test in tests):
        section["ensemble"] = scored([ensemble([_read(test, problem) for test in tests])])
    return section


def problem_of(file: Path) -> str:
    """The kind of answers in a table of predictions, by the type of its column `prediction`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pq.read_schema(file).field("prediction").type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return REGRESSION if pa.types.is_floating(kind.value_type) else MULTI
    return REGRESSION if pa.types.is_floating(kind) else SINGLE


def ensemble(models: Sequence[TaskAnswers]) -> TaskAnswers:
    """The mean of the probabilities (of numbers: of the answers) that several models give to the same rows.

    Where several labels have thresholds, those of the ensemble are the means of its models'.

    Raises:
        UserError: the rows differ.
    """
    first = models[0]
    for other in models[1:]:
        if not (np.array_equal(first.ids, other.ids) and np.array_equal(first.truth, other.truth)):
            raise UserError("The folds have predicted different test rows: the data has changed between them.")
    thresholds = tuple(np.mean([model.rule.thresholds for model in models], axis=0).tolist())
    scores = np.mean([model.scores for model in models], axis=0)
    return replace(first, scores=scores, rule=replace(first.rule, thresholds=thresholds))


def folds_in_words(section: Mapping[str, Any]) -> str:
    """Lines at the end of a run: out-of-fold scores with intervals and the folds' range, and the ensemble's."""
    lines = [f"{section['folds']} folds: every training row predicted by a model that has not seen it "
             f"({section['samples']:,} samples)"]  # fmt: skip
    lines += _scores_in_words(section, section["by_fold"])
    if "ensemble" in section:
        lines.append(f"mean of the {section['folds']} models on test ({section['ensemble']['samples']:,} samples)")
        lines += _scores_in_words(section["ensemble"], {})
    return "\n".join(lines)


def _scores_in_words(scores: Mapping[str, Any], by_fold: Mapping[str, Sequence[Any]]) -> list[str]:
    lines = []
    for name in names_of({key: value for key, value in scores.items() if f"{key}_ci95" in scores or key in by_fold}):
        value, interval = scores.get(name), scores.get(f"{name}_ci95")
        shown = "undefined" if value is None else f"{value:.4f}"
        between = f"  95% between {interval[0]:.4f} and {interval[1]:.4f}" if interval else ""
        each = [number for number in by_fold.get(name, ()) if number is not None]
        apart = f"  folds {min(each):.4f} to {max(each):.4f}" if each else ""
        lines.append(f"  {name:<24}{shown}{between}{apart}")
    return lines


def _read(file: Path, problem: str) -> TaskAnswers:
    return read_answers(file, [{"name": "", "problem": problem}])[0]
