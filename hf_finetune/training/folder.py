"""The run's folder: whose it is, whether there is something to continue, and that two runs never share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import is_main_process, say
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole
from hf_finetune.recipes import Recipe, load_recipe
from hf_finetune.training.checkpoints import newest_whole, step_of

if TYPE_CHECKING:
    from filelock import BaseFileLock

STATE = "state.json"


class RunFolder:
    """`output_dir` of a recipe.

    Args:
        recipe: the run's recipe.
        resume: `auto` continues an interrupted run of the same recipe, `never` insists on a fresh folder, a path names
            a checkpoint.

    Raises:
        UserError: the folder holds another recipe's run, something that is no run, or a run that is going on.
    """

    def __init__(self, recipe: Recipe, resume: str = "auto") -> None:
        self.path = Path(recipe.output_dir)
        self.recipe = recipe
        self.resume = resume
        self._lock: BaseFileLock | None = None
        self._check_owner()

    @property
    def checkpoints(self) -> Path:
        """Folder of the resumable checkpoints."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether this very recipe has been run here to its end: metrics.json is written last."""
        return self.resume == "auto" and (self.path / "metrics.json").is_file()

    def open(self) -> None:
        """Make the folder, lock it against a second run, and write down the recipe before any work."""
        if not is_main_process():
            return
        from filelock import FileLock, Timeout

        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"Another process is running in {self.path}: wait for it, or give another output_dir."
            ) from None
        except OSError as fault:
            raise UserError(f"output_dir={self.path} cannot be written: {fault}. Give another output_dir.") from fault
        if not (self.path / "recipe.yaml").exists():
            write_whole(self.path / "recipe.yaml", self.recipe.to_yaml())

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            (self.path / ".lock").unlink(missing_ok=True)
            self._lock = None

    def checkpoint(self, facts: dict[str, Any]) -> Path | None:
        """The checkpoint to continue from, if any.

        Args:
            facts: what an exact resume depends on (data fingerprint, processes, precision); written down at the first
                start and compared at a resume.

        Raises:
            UserError: other data than the checkpoint was trained on, or `resume` names something that is no checkpoint.
        """
        state = self.path / STATE
        found = self._find_checkpoint()
        if found is not None and state.is_file():
            _compare(json.loads(state.read_text()), facts)
        if is_main_process():
            write_whole(state, json.dumps(facts, indent=1))
        if found is not None:
            say(f"Continuing from {found} (step {step_of(found)}).")
        return found

    def _find_checkpoint(self) -> Path | None:
        if self.resume in ("auto", "never"):
            return newest_whole(self.checkpoints)
        if step_of(Path(self.resume)) < 0 or not Path(self.resume).is_dir():
            raise UserError(
                f"resume={self.resume}: allowed are auto, never, or a folder checkpoint-N of this recipe's run."
            )
        return Path(self.resume)

    def _check_owner(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"output_dir={self.path} is a file. Give another output_dir.")
        left = [path for path in self.path.iterdir() if path.name != ".lock"]
        if not left:
            return
        written = self.path / "recipe.yaml"
        if not written.is_file():
            raise UserError(
                f"output_dir={self.path} exists and holds no run (first: {left[0].name}); it is never overwritten. "
                "Give another output_dir."
            )
        differences = _differences(load_recipe(str(written)), self.recipe)
        if differences:
            shown = "\n".join(f"  {line}" for line in differences[:10])
            raise UserError(
                f"output_dir={self.path} holds another recipe's run; it is never overwritten. What differs:\n{shown}\n"
                "Give another output_dir, or delete the folder."
            )
        if self.resume == "never":
            raise UserError(
                f"resume=never, but {self.path} holds a run of this recipe. Give another output_dir, or delete it."
            )


def _differences(written: Recipe, asked: Recipe) -> list[str]:
    """Settings that differ, as `path: there | here`; a revision that the run has pinned is no difference."""
    there, here = (
        _flat(recipe.model_dump(mode="json", exclude={"expected", "output_dir"})) for recipe in (written, asked)
    )
    return [
        f"{path}: there {there.get(path)!r}, here {here.get(path)!r}"
        for path in sorted(there.keys() | here.keys())
        if there.get(path) != here.get(path) and not (path.endswith(".revision") and here.get(path) is None)
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    pairs = (_flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items())
    return {key: leaf for pair in pairs for key, leaf in pair.items() if leaf is not None}


def _compare(then: dict[str, Any], now: dict[str, Any]) -> None:
    if then.get("data") != now.get("data"):
        raise UserError(
            "The data is not what this run was started on (another fingerprint), so it cannot go on exactly. "
            "Restore the data, or give another output_dir."
        )
    for name in sorted(now.keys() - {"data"}):
        if then.get(name) != now[name]:
            say(f"note: this run was started with {name} {then.get(name)} and goes on with {now[name]}.")
