"""What a run leaves in its folder, each file whole or not at all: weights first, metrics.json last.

A folder with a metrics.json is therefore a finished run. Its page, report.html, is drawn after that. Nothing that goes
wrong with what only shows the run (pictures, card, about.json, the page) can lose it: it is left out, with a warning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from hf_finetune.console import warn
from hf_finetune.data.commits import commit_of_data, data_commits
from hf_finetune.files import write_whole
from hf_finetune.model import save_pretrained
from hf_finetune.model.adapter_files import ADAPTER_FILES
from hf_finetune.model.heads import brings_code
from hf_finetune.outputs import Rule
from hf_finetune.publish.about import ABOUT, about_run
from hf_finetune.publish.card import model_card
from hf_finetune.publish.card_pictures import FOLDER, card_pictures
from hf_finetune.publish.local_places import is_hub_id, local_places, public_recipe
from hf_finetune.publish.predictions import write_predictions
from hf_finetune.publish.report import draw_report

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes import Recipe

HELD_OUT = "held_out.parquet"  # as predictions.parquet, of the fold that did not train
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

    @property
    def held_out_logits(self) -> np.ndarray | None:
        """(N, C) in the order of the fold that did not train; None without one."""


def save_run(
    folder: str | Path,
    *,
    recipe: Recipe,
    task: TaskData,
    loaded: LoadedModel,
    applied: Trained,
    report: Report,
    table: str = "",
    history: list[dict[str, Any]] | None = None,
    number_format: str | None = None,
) -> None:
    """Write model and processor, predictions.parquet, rows left out, recipe.yaml, README.md, metrics.json, the report.

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
        history: the Trainer's log, for its picture.
        number_format: of the training steps.
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
    rule = Rule.of(applied.model.config)
    if task.test is not None and report.test_logits is not None:
        write_predictions(folder / "predictions.parquet", task.test, report.test_logits, task.labels, rule)
    if task.held_out is not None and report.held_out_logits is not None:
        write_predictions(folder / HELD_OUT, task.held_out, report.held_out_logits, task.labels, rule)
    _write_rows(folder / "skipped.jsonl", task.skipped)
    _write_rows(folder / "cleaned.jsonl", task.cleaning.dropped if task.cleaning else [])
    pinned = pin_revisions(recipe, task, loaded)
    write_whole(folder / "recipe.yaml", pinned.to_yaml())
    _write_card(folder, recipe, pinned, task, applied.model, report, table, history or [], number_format)
    write_whole(folder / "metrics.json", _json(report.metrics))
    draw_report(folder, pinned, task, applied.model, loaded.processor, report)


def _write_card(
    folder: Path,
    recipe: Recipe,
    pinned: Recipe,
    task: TaskData,
    model: nn.Module,
    report: Report,
    table: str,
    history: list[dict[str, Any]],
    number_format: str | None,
) -> None:
    """about.json, pictures and README.md: each without those that could not be made."""
    about: dict[str, Any] = {}
    pictures: dict[str, bytes] = {}
    with _spared(ABOUT):
        about = about_run(
            task,
            table=table,
            own_code=brings_code(model),
            local=local_places(recipe),
            history=history,
            number_format=number_format,
        )
        write_whole(folder / ABOUT, _json(about))
    with _spared("a picture of the model card"):
        drawn = card_pictures(task.labels, history, best_metric(recipe, report.metrics), folder)
        for name, content in drawn.items():
            (folder / FOLDER).mkdir(exist_ok=True)
            write_whole(folder / FOLDER / name, content)
            pictures[name] = content
    with _spared("README.md, the model card,"):
        card = model_card(
            public_recipe(pinned, folder.resolve().name, local_places(recipe)),
            task.labels,
            report.metrics,
            table,
            own_code=brings_code(model),
            about=about,
            pictures=pictures,
            adapter=(folder / ADAPTER_FILES[0]).exists(),
        )
        write_whole(folder / "README.md", card)


@contextmanager
def _spared(what: str) -> Iterator[None]:
    """Work on what only shows the run: whatever goes wrong with it is a warning."""
    try:
        yield
    except Exception as fault:  # hours of training are not lost for it
        warn(f"{what} was not made: {type(fault).__name__}: {fault}. The run itself is complete without it.")


def best_metric(recipe: Recipe, metrics: dict[str, dict[str, Any]]) -> str | None:
    """The validation metric that chose the checkpoint: the recipe's, else the first that was measured."""
    measured = [name for name in metrics.get("validation", {}) if name not in ("loss", "samples")]
    return recipe.evaluation.best or next(iter(measured), None)


def _json(value: Any) -> str:
    return json.dumps(without_nan(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def pin_revisions(recipe: Recipe, task: TaskData, loaded: LoadedModel) -> Recipe:
    """The recipe with the commits that were really loaded, where they are known."""
    commits = data_commits((task.train, task.validation, task.test))

    def pinned(data: Any) -> Any:
        named = data.dataset if data is not None and isinstance(data.dataset, str) and is_hub_id(data.dataset) else ""
        commit = commit_of_data(named, commits)
        return data.model_copy(update={"revision": commit}) if commit else data

    changed: dict[str, Any] = {"data": pinned(recipe.data)}
    if loaded.revision:
        changed["model"] = recipe.model.model_copy(update={"revision": loaded.revision})
    if recipe.tasks:
        changed["tasks"] = {
            name: each.model_copy(update={"data": pinned(each.data)}) for name, each in recipe.tasks.items()
        }
    return recipe.model_copy(update=changed)


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
