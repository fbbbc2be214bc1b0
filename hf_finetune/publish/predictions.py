"""predictions.parquet: the test split, row by row, as the saved model sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_finetune.files import write_whole
from hf_finetune.outputs import predictions, probabilities

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.data import LabelSpace


def write_predictions(path: Path, test: Dataset, logits: np.ndarray, labels: LabelSpace) -> None:
    """Write the columns id, label, prediction and, for classes, probabilities.

    Classes are names; several labels are lists of names; regression is numbers (lists where there are several
    targets). `probabilities` holds one number a class, in the order of the file's metadata key `label_names` (JSON).

    Args:
        path: the file.
        test: rows with id and label, in the order of `logits`.
        logits: (N, C).
        labels: of the data, whose order is the model's.
    """
    decided = predictions(logits, labels.problem_type)
    columns: dict[str, Any] = {
        "id": pa.array(test["id"][:], type=pa.int64()),
        "label": pa.array([labels.decode(target) for target in test["label"][:]]),
        "prediction": pa.array([labels.decode(target) for target in decided.tolist()]),
    }
    if labels.problem_type != "regression":
        scores = probabilities(logits, labels.problem_type)
        ends = np.arange(0, scores.size + 1, scores.shape[1], dtype=np.int64)
        columns["probabilities"] = pa.LargeListArray.from_arrays(ends, scores.ravel())
    table = pa.table(columns)
    table = table.replace_schema_metadata({"label_names": json.dumps(list(labels.names), ensure_ascii=False)})
    write_whole(path, lambda temporary: pq.write_table(table, temporary))
