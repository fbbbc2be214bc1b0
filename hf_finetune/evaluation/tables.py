"""Predictions as a table: in memory, on the screen, in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hf_finetune.errors import UserError
from hf_finetune.outputs import Rule

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.evaluation.inputs import Inputs
    from hf_finetune.evaluation.predictor import Answers, Predictor

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
_WIDTH = 60  # characters of an input shown on the screen


def check_ending(out: str) -> None:
    """Whether a table can be written there, found before any work is done."""
    path = Path(out)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {out}: the file's ending is its format, one of {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {path.parent}.")


def prediction_table(predictor: Predictor, inputs: Inputs, answers: Answers) -> pd.DataFrame:
    """Columns input, prediction, score (of the predicted class), score_<class> for every class, error.

    Of a model that makes prediction sets also set, the names in it, the likeliest first.

    For multi-label, prediction is a list of names and there is no single score; for regression it is the number, or
    `prediction_<target>` for each of several. Of several tasks each has such columns, `<task>_prediction` and so on. A
    row that could not be read has nothing but input and error.
    """
    columns: dict[str, Any] = {"input": inputs.names}
    good = [row not in answers.errors for row in range(len(inputs.names))]
    if not predictor.labels.tasks:
        columns |= _columns(predictor.labels, answers.logits, answers.probabilities, predictor.rule)
    for part in predictor.labels.tasks:
        at = part.outputs
        own = _columns(part.space, answers.logits[:, at], answers.probabilities[:, at], predictor.rule)
        columns |= {f"{part.name}_{name}": column for name, column in own.items()}
    columns["error"] = [answers.errors.get(row) for row in range(len(inputs.names))]
    table = pd.DataFrame(columns)
    said = [name for name in table.columns if name not in ("input", "error")]
    for name in said:
        table[name] = table[name].where(pd.Series(good), None)
    return table


def _columns(labels: LabelSpace, logits: np.ndarray, scores: np.ndarray, rule: Rule) -> dict[str, Any]:
    names = labels.names
    if labels.problem_type == "regression":
        heads = ["prediction"] if len(names) == 1 else [f"prediction_{name}" for name in names]
        return {head: scores[:, place] for place, head in enumerate(heads)}
    decided = rule.decided(logits, labels.problem_type)
    columns: dict[str, Any] = {}
    if labels.problem_type == "single_label_classification":
        columns["prediction"] = [names[place] for place in decided]
        columns["score"] = scores.max(axis=1)
        if rule.quantile is not None:
            ranked = zip(np.argsort(-logits, axis=1, kind="stable"), rule.sets(scores), strict=True)
            columns["set"] = [[names[place] for place in order if inside[place]] for order, inside in ranked]
    else:
        columns["prediction"] = [[name for name, hit in zip(names, row, strict=True) if hit] for row in decided]
    return columns | {f"score_{name}": scores[:, place] for place, name in enumerate(names)}


def shown(table: pd.DataFrame) -> str:
    """The table for the screen, tab separated: input, prediction, score; errors where there are any."""
    wanted = [name for name in table.columns if "score_" not in name or name.endswith("prediction")]
    if table["error"].isna().all():
        wanted.remove("error")
    lines = ["\t".join(wanted)]
    lines += ["\t".join(_cell(value) for value in row) for row in table[wanted].itertuples(index=False)]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def as_rows(table: pd.DataFrame, suffix: str, *, header: bool) -> str:
    """Lines of a jsonl, csv or tsv file; lists are JSON in csv and tsv. `header` puts the columns' names first."""
    if suffix == ".jsonl":
        lines: str = table.to_json(orient="records", lines=True, force_ascii=False, double_precision=8)
        return lines
    flat = table.map(lambda value: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)
    return flat.to_csv(index=False, header=header, sep="," if suffix == ".csv" else "\t")


def join_parquet(files: Sequence[Path], out: Path) -> None:
    """Parquet files as one, a file in memory at a time.

    A column that is empty in one of them has no type there; it gets that of the others.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(file).remove_metadata() for file in files]
    whole = pa.unify_schemas(schemas, promote_options="permissive")
    with pq.ParquetWriter(out, whole) as writer:
        for file in files:
            writer.write_table(pq.read_table(file).replace_schema_metadata().cast(whole))
