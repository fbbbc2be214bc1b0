"""The run's folder: whose it is, whether there is something to continue, and that two runs never share it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import is_main_process, say, warn
from hf_finetune.disk import Place, disk_errno, disk_error
from hf_finetune.errors import TransientError, UserError
from hf_finetune.files import clear_leftovers, is_leftover, write_whole
from hf_finetune.prefix_store import release
from hf_finetune.recipes import Recipe, load_recipe
from hf_finetune.training.agreement import as_the_first, together
from hf_finetune.training.checkpoints import newest_step, set_aside, step_of
from hf_finetune.training.going_on import where_to_go_on
from hf_finetune.training.same_run import FLAG, HARMLESS, asked_revisions, compare, differences, for_speed

if TYPE_CHECKING:
    from filelock import BaseFileLock

STATE = "state.json"
ADVICE = "advice.json"  # what strategy=auto has chosen, before there is a run
ACCEPTED = "accepted_changes"
REVISIONS = "revisions"  # as they were asked for: recipe.yaml has the commits in the end
_LATE = ("prefix", "sweep")  # facts that are found out after `claim`, by `record`
# All that an attempt can have left that ended before its first checkpoint.
_BEGUN = frozenset({"recipe.yaml", STATE, ADVICE, "checkpoints", ".lock"})


class RunFolder:
    """`output_dir` of a recipe.

    Args:
        recipe: the run's recipe.
        resume: `auto` continues an interrupted run of the same recipe, `never` insists on a fresh folder, a path names
            a checkpoint.
        accept_changes: go on with a run that was started with another recipe, other data or other versions.

    Raises:
        UserError: the folder holds another recipe's run, something that is no run, or a run that is going on.
    """

    def __init__(self, recipe: Recipe, resume: str = "auto", accept_changes: bool = False) -> None:
        self.path = Path(recipe.output_dir)
        self.recipe = recipe
        self.resume = resume
        self._accept = accept_changes
        self._changed: list[str] = []  # in the recipe, and accepted
        self._lock: BaseFileLock | None = None
        self._made: list[Path] = []
        self._place: Place | None = None
        self.most_at_once: int | None = None  # rows that may go through the model, as the run has found out
        self._check_owner()

    @property
    def checkpoints(self) -> Path:
        """Folder of the resumable checkpoints."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether this very recipe has been run here to its end: metrics.json is written last."""
        return (self.path / "metrics.json").is_file()

    def open(self) -> None:
        """Make the folder and lock it against a second run; `claim` writes into it, once everything is checked."""
        if not is_main_process():
            return
        from filelock import FileLock, Timeout

        try:
            places = (self.checkpoints, self.path, *self.path.parents)  # the Trainer makes the first when it is built
            self._made = [path for path in places if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
            self._place = Place(self.path)
        except Timeout:
            raise TransientError(
                f"Another process is running in {self.path}: wait for it, or give another output_dir."
            ) from None
        except OSError as fault:
            self.close()
            number = disk_errno(fault)
            if number is not None:
                raise disk_error(f"output_dir={self.path} cannot be written", number, self.path) from fault
            raise UserError(f"output_dir={self.path} cannot be written: {fault}. Give another output_dir.") from fault

    def check_place(self) -> None:
        """Raise a DiskError where the folder's drive has gone since `open`."""
        if self._place is not None:
            self._place.check()

    def close(self) -> None:
        """Release the lock; where nothing was begun, nothing is left."""
        if self._lock is not None:
            with suppress(OSError):  # here and below: a disk that does not answer must not hide why the run ended
                if not (self.path / "recipe.yaml").exists() and self.checkpoints.is_dir():
                    self.checkpoints.rmdir()  # the Trainer makes it, also where an error comes before training
            release(self._lock)
            self._lock = None
            with suppress(OSError):
                for path in self._made:
                    if path.exists() and any(path.iterdir()):
                        break
                    if path.exists():
                        path.rmdir()

    def checkpoint(self, facts: dict[str, Any]) -> Path | None:
        """The checkpoint to continue from, if any; the same on every process, all of which must ask.

        Args:
            facts: what an exact resume depends on (data fingerprint, digest of frozen weights, processes, precision),
                compared with what they were at the first start.

        Raises:
            UserError: other data or weights than the checkpoint was trained on, `resume` names something else than a
                whole checkpoint of this run, or a process does not see the checkpoint.
        """
        found, then = where_to_go_on(self.checkpoints, self.resume), as_the_first(self._facts)
        if found is not None:
            then = {name: fact for name, fact in then.items() if name not in (*_LATE, ACCEPTED, REVISIONS)}
            self._changed += together(compare, then, facts, self._accept)
        return found

    def claim(self, facts: dict[str, Any], found: Path | None) -> None:
        """Write down whose folder this is, just before training, on rank 0; every rank has looked at it by then."""
        if not is_main_process():
            return
        clear_leftovers(self.path)  # the lock says that nobody else is writing
        if self._came_to_nothing or self._changed or not (self.path / "recipe.yaml").is_file():
            write_whole(self.path / "recipe.yaml", self.recipe.to_yaml())
        kept = (*_LATE, ACCEPTED)
        late = {} if found is None else {name: fact for name, fact in self._facts.items() if name in kept}
        if found is not None and self._changed:
            late[ACCEPTED] = [*late.get(ACCEPTED, []), {"step": step_of(found), "changes": self._changed}]
        asked = {REVISIONS: asked_revisions(self.recipe)}
        write_whole(self.path / STATE, json.dumps({**facts, **asked, **late}, indent=1))
        self.checkpoints.mkdir(exist_ok=True)
        set_aside(self.checkpoints, -1 if found is None else step_of(found))
        if found is not None:
            say(f"Continuing from {found} (step {step_of(found)}).")

    def record(self, **facts: Any) -> None:
        """Write down what the run depends on and found out by itself, on rank 0; see `recorded`."""
        if is_main_process():
            write_whole(self.path / STATE, json.dumps({**self._facts, **facts}, indent=1))

    def check_finished(self, fingerprint: str) -> None:
        """Raise a UserError where the finished run was trained on other data than there is now."""
        if self._facts.get("data", fingerprint) != fingerprint:
            raise UserError(
                f"{self.path} holds the finished run of this recipe, but on other data than there is now (another "
                "fingerprint). Give another output_dir."
            )

    @property
    def accepted(self) -> dict[str, Any]:
        """What was changed during the run, for metrics.json: `{"accepted_changes": [{"step", "changes"}, ...]}`."""
        return {name: fact for name, fact in self._facts.items() if name == ACCEPTED}

    @property
    def recorded(self) -> dict[str, Any]:
        """The facts of the run that there is to go on with, as the first process reads them; all must ask.

        Nothing where there is none.
        """
        return as_the_first(self._facts if newest_step(self.checkpoints) >= 0 else {})

    @property
    def rows_at_once(self) -> int | None:
        """What `training.auto_find_batch_size` has found for this run, with or without a checkpoint of it."""
        return self._facts.get("micro_batch")

    @property
    def _came_to_nothing(self) -> bool:
        """Whether all in the folder is ours, of an attempt without a checkpoint: then there is nothing to lose."""
        return (self.path / STATE).is_file() and not is_begun(self.path)

    @property
    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.path / STATE).read_text())
        except (OSError, ValueError):
            return {}
        return facts

    def _check_owner(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"output_dir={self.path} is a file. Give another output_dir.")
        found = [path for path in self.path.iterdir() if path.name not in (".lock", ADVICE)]
        left = [path for path in found if not _empty(path, "checkpoints") and not is_leftover(path)]
        if not left:
            return
        if self.resume not in ("auto", "never") and self.finished:
            raise UserError(
                f"resume={self.resume}: {self.path} holds a finished run, which is never overwritten. Give another "
                "output_dir."
            )
        written = self.path / "recipe.yaml"
        if not written.is_file():
            raise UserError(
                f"output_dir={self.path} exists and holds no run (first: {left[0].name}); it is never overwritten. "
                "Give another output_dir."
            )
        if self._came_to_nothing:
            return
        self._check_recipe(load_recipe(str(written)))
        if self.resume == "never":
            raise UserError(
                f"resume=never, but {self.path} holds a run of this recipe. Give another output_dir, or delete it."
            )

    def _check_recipe(self, written: Recipe) -> None:
        free = () if self.finished else (*HARMLESS, *for_speed(self.recipe))
        began = self._facts.get(REVISIONS)
        different = differences(written, self.recipe, free, began)
        shown = "\n".join(f"  {line}" for line in different[:10])
        begun = not self.finished and newest_step(self.checkpoints) >= 0
        if different and not (begun and self._accept):
            also = f", or go on with this run as the recipe is now: {FLAG}" if begun else ""
            raise UserError(
                f"output_dir={self.path} holds another recipe's run; it is never overwritten. What differs:\n{shown}\n"
                f"Give another output_dir, or delete the folder{also}."
            )
        if different:
            warn(f"accepted, and no longer the run that was started:\n{shown}")
            self._changed += different
        elif not self.finished:
            for line in differences(written, self.recipe, for_speed(self.recipe), began):
                say(f"note: this run was started with another setting, which changes nothing else: {line}.")


def is_begun(path: Path) -> bool:
    """Whether a folder holds more of a run than an attempt leaves that ended before its first checkpoint."""
    left = {each.name for each in path.iterdir() if not is_leftover(each)}
    return not left <= _BEGUN or newest_step(path / "checkpoints") >= 0


def _empty(path: Path, name: str) -> bool:
    return path.name == name and path.is_dir() and not any(path.iterdir())
