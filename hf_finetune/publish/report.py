"""report.html: one page that shows a run, or several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import warn
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole
from hf_finetune.publish.local_places import as_written, own_places, without
from hf_finetune.publish.report_data import NAME, Scored, gather

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.recipes import Recipe

PAGE = "report.html"


def draw_report(folder: Path, recipe: Recipe, task: TaskData, model: Any, processor: Any, report: Scored) -> None:
    """Write report.json and report.html of a run that has been saved; what fails is a warning.

    Args:
        folder: of the run.
        recipe, task, model, processor, report: see `report_data.gather`.
    """
    from hf_finetune.publish.save import without_nan

    try:
        data = without_nan(gather(recipe, task, model, processor, report))
        write_whole(folder / NAME, json.dumps(data, allow_nan=False, ensure_ascii=False, default=str) + "\n")
        write_report([folder], folder / PAGE)
    except Exception as fault:  # whatever it is, the run is whole
        warn(
            f"{PAGE} was not made: {type(fault).__name__}: {fault}. The run itself is complete; "
            f"hf-finetune report {folder} tries again."
        )


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Draw the page of a finished run, or of several side by side.

    Places below the working directory and the home of who runs this are written from there (`./photos`, `~/photos`),
    so that a page which is handed on names nobody.

    Args:
        folders: output_dirs of finished runs.
        out: the file.

    Raises:
        UserError: one is no finished run.
    """
    from hf_finetune.publish.report_compare import compared
    from hf_finetune.publish.report_page import render
    from hf_finetune.publish.report_view import read_material, view_of

    runs = [read_material(finished(folder)) for folder in folders]
    for place, name in enumerate(_different([run.folder for run in runs])):
        runs[place].name = name
    views = [view_of(run) for run in runs]
    page = render(views, compared(runs, views) if len(runs) > 1 else None)
    write_whole(out, without(page, as_written(own_places())))


def finished(folder: Path) -> Path:
    """The folder, if a finished run is there; else a UserError."""
    lacking = [name for name in ("recipe.yaml", "metrics.json") if not (folder / name).is_file()]
    if lacking:
        raise UserError(f"{folder} holds no finished run: {', '.join(lacking)} is missing. Give a run's output_dir.")
    return folder


def _different(folders: Sequence[Path]) -> list[str]:
    """A name for each: its last part, with those before it where that is not enough."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{one[-1]} ({place + 1})" for place, one in enumerate(parts)]
