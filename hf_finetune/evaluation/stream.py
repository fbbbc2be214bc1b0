"""Predictions of any number of inputs: a chunk in memory, the table on disk, and a stop costs a chunk at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd
from tqdm.auto import tqdm

from hf_finetune.console import say, warn
from hf_finetune.evaluation.inputs import Inputs
from hf_finetune.evaluation.partial import Partial
from hf_finetune.evaluation.tables import prediction_table, shown

if TYPE_CHECKING:
    from hf_finetune.evaluation.predictor import Predictor

# Inputs between two writes. A stop costs so much work; texts of like length meet within a chunk.
_BATCHES = {"image-classification": 8, "text-classification": 64}


def predict_all(predictor: Predictor, found: Inputs, model: str, out: str | None, batch_size: int) -> int:
    """Predict and write, or print.

    Args:
        predictor: a finished model.
        found: what to predict.
        model: where the model is from: a folder or a Hub id.
        out: the file, by its ending; the table is printed where None.
        batch_size: inputs at a time.

    Returns:
        exit code: 0, or 1 where an input could not be read.

    Raises:
        UserError: what is written already belongs to another model or other inputs.
    """
    if out is None:
        tables = list(_tables(predictor, found, batch_size))
        say(shown(pd.concat(tables, ignore_index=True)))
        errors = {place: table for place, table in enumerate(tables) if table["error"].notna().any()}
        bad = sum(int(table["error"].notna().sum()) for table in errors.values())
        return _told(bad, _first(next(iter(errors.values()))) if errors else None, len(found.names))
    partial = Partial.opened(out, predictor, found, model)
    if partial.rows:
        say(f"{partial.rows:,} of {len(found.names):,} predictions are in {partial.path} already; going on.")
    try:
        for table in _tables(predictor, found, batch_size, partial.rows):
            partial.add(table, _first(table))
    except KeyboardInterrupt:
        say(f"\n{partial.rows:,} of {len(found.names):,} predictions are in {partial.path}; the same command goes on.")
        raise
    partial.finish()
    say(f"{len(found.names):,} predictions in {out}.")
    return _told(partial.errors, partial.first_error, len(found.names))


def _tables(predictor: Predictor, found: Inputs, batch_size: int, done: int = 0) -> Iterator[pd.DataFrame]:
    """Predictions from a row on, a chunk after the other, beside a bar."""
    total = len(found.names)
    step = batch_size * _BATCHES[predictor.task]
    with tqdm(total=total, initial=done, desc="predicting", unit="sample") as bar:
        for start in range(done, total, step):
            part = found.part(start, min(start + step, total))
            answers = predictor.answer(part.values, batch_size)
            answers.errors.update(part.errors)
            yield prediction_table(predictor, part, answers)
            bar.update(len(part.names))


def _first(table: pd.DataFrame) -> str | None:
    """The first input that could not be read, and why."""
    bad = table[table["error"].notna()]
    return f"{bad['input'].iloc[0]}: {bad['error'].iloc[0]}" if len(bad) else None


def _told(errors: int, first: str | None, total: int) -> int:
    if errors:
        warn(f"{errors:,} of {total:,} inputs could not be read; the first: {first}")
    return 1 if errors else 0
