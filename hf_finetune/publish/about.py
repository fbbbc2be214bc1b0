"""about.json: what a run's card and report tell beside recipe and scores. It stays in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.publish.versions import machine_in_words, versions

if TYPE_CHECKING:
    from hf_finetune.data import TaskData

ABOUT = "about.json"


def about_run(
    task: TaskData,
    *,
    table: str,
    own_code: bool,
    local: tuple[str, ...],
    history: list[dict[str, Any]],
    number_format: str | None,
) -> dict[str, Any]:
    """What was there and what happened, as plain values.

    Args:
        task: the data.
        table: the strategy's table.
        own_code: whether the model's code lies beside its weights.
        local: what the recipe names that lies on this machine.
        history: the Trainer's log, entry by entry.
        number_format: of the training steps.
    """
    rows = {name: len(split) for name in ("train", "validation", "test") if (split := getattr(task, name)) is not None}
    return {
        "rows": rows,
        "skipped": len(task.skipped),
        "cleaned": len(task.cleaning.dropped) if task.cleaning else 0,
        "labels": _labels(task.labels),
        "strategy_table": table,
        "own_code": own_code,
        "local": list(local),
        "trained": {"home": str(Path.home()), "cwd": str(Path.cwd())},  # a push from elsewhere takes these out too
        "splits": dict(task.whence),
        "versions": versions(),
        "machine": machine_in_words(),
        "number_format": number_format,
        "history": history,
    }


def read_about(folder: Path) -> dict[str, Any]:
    """What about.json holds; nothing where there is none."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about


def labels_of(about: dict[str, Any], folder: Path) -> LabelSpace:
    """What the model answers; from its config.json where about.json does not tell."""
    told = about.get("labels")
    if told is None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = config.get("label_names") or list(config.get("id2label", {}).values())
        return LabelSpace(config.get("problem_type") or "single_label_classification", tuple(names))
    if told.get("tasks"):
        spaces = {
            part["name"]: (part["column"], LabelSpace(part["problem_type"], tuple(part["names"])))
            for part in told["tasks"]
        }
        return ManyLabels.of(spaces)
    return LabelSpace(told["problem_type"], tuple(told["names"]))


def _labels(space: LabelSpace) -> dict[str, Any]:
    parts = [
        {
            "name": part.name,
            "column": part.column,
            "problem_type": part.space.problem_type,
            "names": list(part.space.names),
        }
        for part in space.tasks
    ]
    return {"problem_type": space.problem_type, "names": list(space.names), **({"tasks": parts} if parts else {})}
