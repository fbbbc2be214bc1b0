"""predictions.parquet: the test split, row by row, as the saved model sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_finetune.files import write_whole
from hf_finetune.outputs import Rule, probabilities

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.data import LabelSpace


def write_predictions(
    path: Path, test: Dataset, logits: np.ndarray, labels: LabelSpace, rule: Rule | None = None
) -> None:
    """Write the columns id, label, prediction and, for classes, probabilities.

    Classes are names; several labels are lists of names; regression is numbers (lists where there are several
    targets). `probabilities` holds one number a class, in the order of the file's metadata key `label_names` (JSON).
    Of several tasks each has such columns, "task_label" and so on, null where the label is missing; `label_names` is
    then a mapping by task, and the column `source` names the data set where there are several. `set` holds the classes
    of the prediction set, where the model makes such; the metadata key `thresholds` those of several labels.

    Args:
        path: the file.
        test: rows with id and label, in the order of `logits`.
        logits: (N, C), divided by the model's temperature.
        labels: of the data, whose order is the model's.
        rule: how they become answers; the plain way if None.
    """
    rule = rule or Rule()
    columns: dict[str, Any] = {"id": pa.array(test["id"][:], type=pa.int64())}
    names: Any = list(labels.names)
    targets = test["label"][:]
    if not labels.tasks:
        columns |= _columns(labels, targets, logits, rule)
    elif "source" in test.column_names:
        columns["source"] = pa.array(test["source"][:])
    for part in labels.tasks:
        own = _columns(part.space, [part.target(row) for row in targets], logits[:, part.outputs], rule)
        columns |= {f"{part.name}_{name}": column for name, column in own.items()}
        names = {each.name: list(each.space.names) for each in labels.tasks}
    table = pa.table(columns)
    kept = {"label_names": json.dumps(names, ensure_ascii=False)}
    if rule.thresholds:
        kept["thresholds"] = json.dumps(rule.thresholds)
    table = table.replace_schema_metadata(kept)
    write_whole(path, lambda temporary: pq.write_table(table, temporary))


def _columns(labels: LabelSpace, targets: list[Any], logits: np.ndarray, rule: Rule) -> dict[str, Any]:
    decided = rule.decided(logits, labels.problem_type)
    columns: dict[str, Any] = {
        "label": pa.array([None if target is None else labels.decode(target) for target in targets]),
        "prediction": pa.array([labels.decode(target) for target in decided.tolist()]),
    }
    if labels.problem_type != "regression":
        scores = probabilities(np.ascontiguousarray(logits), labels.problem_type)
        ends = np.arange(0, scores.size + 1, scores.shape[1], dtype=np.int64)
        columns["probabilities"] = pa.LargeListArray.from_arrays(ends, scores.ravel())
        if rule.quantile is not None:
            columns["set"] = pa.array(
                [[labels.names[place] for place in np.flatnonzero(row)] for row in rule.sets(scores)]
            )
    return columns
