"""`hf-finetune report`: the page of finished runs again; what it shows of the data can be looked up anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import say, warn
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole
from hf_finetune.publish.report import PAGE, finished, write_report
from hf_finetune.publish.report_answers import read_answers
from hf_finetune.publish.report_data import NAME, described, kept_data, of_test
from hf_finetune.publish.report_slices import slices_of

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe


def report_command(
    runs: Sequence[str],
    out: str | None = None,
    by: Sequence[str] = (),
    *,
    again: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Draw a page.

    Args:
        runs: output_dirs of finished runs.
        out: the file; report.html in the run's folder, of several runs in this folder.
        by: columns of the data whose values' scores are shown too, and kept in the run's report.json.
        again: ask model and data anew: for runs that kept no report.json, or whose page was not made.
        trust_remote_code: run code from the Hub that a checkpoint brings.

    Returns:
        the file.

    Raises:
        UserError: one is no finished run, the data is not there, or has no such column.
    """
    folders = [finished(Path(run)) for run in runs]
    target = Path(out) if out else folders[0] / PAGE if len(folders) == 1 else Path(PAGE)
    if not target.parent.is_dir():
        raise UserError(f"--out {target}: there is no folder {target.parent}.")
    for folder in folders:
        if again:
            _look_again(folder, trust_remote_code)
        if by:
            _score_columns(folder, by)
    write_report(folders, target)
    return target


def draw_missing(folder: Path, *, trust_remote_code: bool = False) -> None:
    """The page of a finished run that was killed before it had one; what fails is a warning.

    Args:
        folder: of the run.
        trust_remote_code: run code from the Hub that a checkpoint brings.
    """
    if (folder / PAGE).is_file():
        return
    say(f"{folder} has no {PAGE}: it is made now.")
    try:
        again = not (folder / NAME).is_file()
        report_command([str(folder)], again=again, trust_remote_code=trust_remote_code)
    except Exception as fault:  # whatever it is, the run is whole
        warn(f"{PAGE} was not made: {type(fault).__name__}: {fault}. The run itself is complete without it.")


def _look_again(folder: Path, trust_remote_code: bool) -> None:
    """Samples, what mattered and scores of parts, from the saved model and the data; the history stays as it is."""
    from hf_finetune.data import load_test
    from hf_finetune.evaluation.commands import logits_of
    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.model import load_finished

    recipe = _recipe(folder)
    loaded = load_finished(folder, trust_remote_code=trust_remote_code)
    predictor = Predictor.of(loaded, recipe)
    test, _ = load_test(recipe, predictor.labels, trained_by=recipe.data, own=True)
    logits = logits_of(predictor, test, recipe, "looking again")
    data = {"format": 1, **kept_data(folder), "tasks": described(predictor.labels)}
    data.setdefault("parameters", sum(parameter.numel() for parameter in loaded.model.parameters()))
    data |= of_test(recipe, test, predictor.labels, logits, loaded.model, loaded.processor)
    _keep(folder, data)


def _score_columns(folder: Path, columns: Sequence[str]) -> None:
    """Scores of the values of columns, from the predictions and the source's own rows."""
    from hf_finetune.data.sources import open_source, take_split
    from hf_finetune.data.split_names import settle_splits

    recipe, data = _recipe(folder), kept_data(folder)
    predictions = folder / "predictions.parquet"
    if not data or not predictions.is_file():
        raise UserError(f"{folder} kept no {NAME} or no test predictions: hf-finetune report {folder} --again first.")
    if any(task.data is not None for task in recipe.tasks.values()):
        raise UserError("--by: the tasks of this run bring data sets of their own, and no column is in all of them.")
    splits = open_source(recipe.data)
    settled = settle_splits(recipe.data, splits)
    # A share that was held out of train numbers its rows as train does.
    name: Any = settled.train_split if isinstance(settled.test_split, float) else settled.test_split
    source = take_split(splits, name, "data.test_split")
    tasks = read_answers(predictions, data["tasks"])
    import pyarrow.parquet as pq

    ids = pq.read_table(predictions, columns=["id"])["id"].to_pylist()
    for column in columns:
        if column not in source.column_names:
            raise UserError(f"--by {column}: the data has no such column. It has: {', '.join(source.column_names)}.")
        values = source.select_columns([column]).select(ids)[column][:]
        if not all(value is None or isinstance(value, (str, int, float)) for value in values):
            raise UserError(f"--by {column}: its values are neither words nor numbers.")
        named = getattr(source.features[column], "names", None)
        values = [value if not named or value is None or value < 0 else named[value] for value in values]
        for place, answers in enumerate(tasks):
            kept = [one for one in data["slices"][place] if one["name"] != column]
            data["slices"][place] = [*kept, *slices_of(answers, {column: values}, recipe.seed)]
    _keep(folder, data)


def _recipe(folder: Path) -> Recipe:
    from hf_finetune.recipes import load_recipe

    return load_recipe(str(folder / "recipe.yaml"))


def _keep(folder: Path, data: dict[str, Any]) -> None:
    from hf_finetune.publish.save import without_nan

    text = json.dumps(without_nan(data), allow_nan=False, ensure_ascii=False, default=str)
    write_whole(folder / NAME, text + "\n")
