"""What a run leaves in its folder, each file whole or not at all: weights first, metrics.json last.

A folder with a metrics.json is therefore a finished run.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from hf_finetune.files import write_whole
from hf_finetune.model import save_pretrained
from hf_finetune.model.heads import brings_code
from hf_finetune.publish.card import is_hub_id, model_card
from hf_finetune.publish.predictions import write_predictions

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes import Recipe

# Keys of `model:` that make it another model than the checkpoint.
_REBUILT = ("activation", "drop_blocks", "in_channels", "image_size", "max_length")


class Trained(Protocol):
    """A strategy's outcome."""

    @property
    def model(self) -> nn.Module:
        """The trained model; a PeftModel where it has adapters."""


class Report(Protocol):
    """Scores and test predictions of a run."""

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """`train`, `validation` and `test`."""

    @property
    def test_logits(self) -> np.ndarray | None:
        """(N, C) in the order of the test split; None without one."""


def save_run(
    folder: str | Path,
    *,
    recipe: Recipe,
    task: TaskData,
    loaded: LoadedModel,
    applied: Trained,
    report: Report,
    table: str = "",
) -> None:
    """Write model and processor, predictions.parquet, the rows left out, recipe.yaml, README.md and metrics.json.

    skipped.jsonl lists broken rows, cleaned.jsonl those that data.clean dropped; neither is written empty.

    Call it on one process. Other files in the folder are left alone.

    Args:
        folder: output_dir; made if it does not exist.
        recipe: the run's recipe; written with the revisions that were loaded.
        task: the data; its test split gives ids and labels of the predictions.
        loaded: the checkpoint, for its processor and revision.
        applied: the strategy, whose model has the trained weights.
        report: scores and test logits.
        table: the strategy's table, for the model card.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Adapters of a checkpoint that was changed fit the base model beside them, not the Hub's.
    rebuilt = any(getattr(recipe.model, key) is not None for key in _REBUILT)
    base = recipe.model.checkpoint if is_hub_id(recipe.model.checkpoint) and not rebuilt else None
    save_pretrained(
        applied.model,
        loaded.processor,
        folder,
        merge=bool(getattr(recipe.strategy, "merge", False)),
        base=base,
        revision=loaded.revision if base else None,
    )
    if task.test is not None and report.test_logits is not None:
        write_predictions(folder / "predictions.parquet", task.test, report.test_logits, task.labels)
    _write_rows(folder / "skipped.jsonl", task.skipped)
    _write_rows(folder / "cleaned.jsonl", task.cleaning.dropped if task.cleaning else [])
    pinned = pin_revisions(recipe, task, loaded)
    write_whole(folder / "recipe.yaml", pinned.to_yaml())
    write_whole(
        folder / "README.md",
        model_card(pinned, task.labels, report.metrics, table, own_code=brings_code(applied.model)),
    )
    text = json.dumps(without_nan(report.metrics), indent=2, allow_nan=False, ensure_ascii=False)
    write_whole(folder / "metrics.json", text + "\n")


def pin_revisions(recipe: Recipe, task: TaskData, loaded: LoadedModel) -> Recipe:
    """The recipe with the commits that were really loaded, where they are known."""
    model, data = recipe.model, recipe.data
    if loaded.revision:
        model = model.model_copy(update={"revision": loaded.revision})
    commit = _data_commit(task)
    if isinstance(data.dataset, str) and is_hub_id(data.dataset) and commit:
        data = data.model_copy(update={"revision": commit})
    return recipe.model_copy(update={"model": model, "data": data})


def _data_commit(task: TaskData) -> str | None:
    """The commit of a Hub data set, which `datasets` keeps in the addresses of the files that it downloaded."""
    addresses = " ".join((task.train.info.download_checksums or {}).keys())
    found = re.search(r"hf://datasets/[^@\s]+@([0-9a-f]{40})/", addresses)
    return found.group(1) if found else None


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line a row that was left out; no file where none was."""
    if rows:
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))
    else:
        path.unlink(missing_ok=True)


def without_nan(value: Any) -> Any:
    """Plain Python values; NaN and infinity, which JSON does not know, become None."""
    if isinstance(value, dict):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [without_nan(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
