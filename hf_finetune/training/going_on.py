"""Where a run goes on: at the newest whole checkpoint or the one that is asked for, the same on every process.

Each of them looking for itself may see another folder: a network drive shows a machine what was there some seconds ago.
One process would go on at step 20 and another at step 10, with other optimizers, until they wait for each other.
"""

from __future__ import annotations

from pathlib import Path

from hf_finetune.console import is_main_process
from hf_finetune.errors import UserError
from hf_finetune.training.agreement import by_the_first, together
from hf_finetune.training.checkpoints import damage, newest_whole, step_of


def where_to_go_on(folder: Path, resume: str) -> Path | None:
    """The checkpoint that the first process finds, whole for all of them; None where there is none. All must ask.

    Args:
        folder: of the checkpoints.
        resume: `auto`, `never`, or the path of a checkpoint in it.

    Raises:
        UserError: `resume` names something else than a whole checkpoint of this run, or a process does not have it.
    """
    found = by_the_first(_find, folder, resume)
    together(_check_is_here, found)
    return found


def _find(folder: Path, resume: str) -> Path | None:
    if resume in ("auto", "never"):
        return newest_whole(folder)
    path = Path(resume)
    if step_of(path) < 0 or not path.is_dir() or path.resolve().parent != folder.resolve():
        raise UserError(
            f"resume={resume}: allowed are auto, never, or a folder checkpoint-N in {folder}. To "
            "start from the weights of another run, give its output_dir as model.checkpoint."
        )
    fault = damage(path)
    if fault is not None:
        raise UserError(f"resume={resume} is damaged ({fault}). resume=auto takes the newest that is whole.")
    return path


def _check_is_here(found: Path | None) -> None:
    if found is None or is_main_process():
        return
    fault = damage(found)
    if fault is not None:
        raise UserError(
            f"{found}, from which the first process goes on, is not the same here ({fault}). output_dir must be one "
            "folder for all machines; a network drive may need some seconds to show what is there: start again then."
        )
