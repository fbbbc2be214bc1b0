"""The folder of a search: whose it is, what lies where, and that two searches never share it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.advice.search_reading import read_space
from hf_finetune.disk import disk_errno, disk_error
from hf_finetune.errors import UserError
from hf_finetune.files import clear_leftovers, write_whole
from hf_finetune.prefix_store import release
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.yaml_text import write_yaml

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from hf_finetune.advice.search_space import Space
    from hf_finetune.recipes import Recipe


class SearchFolder:
    """Where a search keeps everything.

    Args:
        path: made by `open`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: BaseFileLock | None = None

    @property
    def study(self) -> Path:
        """Optuna's SQLite file."""
        return self.path / "study.db"

    @property
    def shipped(self) -> Path:
        """The recipe that is searched around."""
        return self.path / "shipped.yaml"

    @property
    def space(self) -> Path:
        """What may change, as `space=` takes it."""
        return self.path / "space.yaml"

    @property
    def best_recipe(self) -> Path:
        """The winner."""
        return self.path / "best.yaml"

    @property
    def best(self) -> Path:
        """The winner's run, the only one that reads the test split."""
        return self.path / "best"

    @property
    def results(self) -> Path:
        """Every trial and what was found, as JSON."""
        return self.path / "results.json"

    @property
    def test_is_read(self) -> bool:
        """Whether the winner has answered the test split: then nothing may be chosen any more."""
        return any((self.best / name).is_file() for name in ("predictions.parquet", "metrics.json"))

    def has_all_of(self, best: Recipe) -> bool:
        """Whether the winner's run is there, with the further seeds and folds that its recipe asks for."""
        try:
            scores = json.loads((self.best / "metrics.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        asked = {"seeds": best.seeds > 1, "cross_validation": best.evaluation.cross_validation is not None}
        return {name for name, wanted in asked.items() if wanted} <= scores.keys()

    def run_of(self, number: int) -> Path:
        """output_dir of a trial; it is gone when the trial has ended."""
        return self.path / "trials" / f"{number:03}"

    def answers_of(self, number: int) -> Path:
        """What a trial's model answers to the validation rows."""
        return self.path / "trials" / f"{number:03}.npz"

    def open(self, recipe: Recipe, space: Space) -> None:
        """Lock the folder for this search.

        Raises:
            UserError: another process searches here, or the folder is another search's, or none.
        """
        from filelock import FileLock, Timeout

        self._refuse_strangers()
        try:
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            self._lock = None
            raise UserError(f"Another process is searching in {self.path}: wait for it, or give out=DIR.") from None
        except OSError as fault:
            number = disk_errno(fault)
            if number is not None:
                raise disk_error(f"out={self.path} cannot be written", number, self.path) from fault
            raise UserError(f"out={self.path} cannot be written: {fault}. Give another out=DIR.") from fault
        try:
            clear_leftovers(self.path)
            if self.shipped.is_file() and self.space.is_file():
                self._check_same(recipe, space)
                return
            write_whole(self.space, "# hf-finetune search recipe=shipped.yaml space=space.yaml\n" + _yaml(space))
            write_whole(self.shipped, recipe.to_yaml())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            release(self._lock)
            self._lock = None

    def clear(self, ended: Iterable[int]) -> None:
        """Delete the runs of trials that have ended: their score and answers are kept, and the winner is run anew."""
        for number in ended:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.run_of(number))

    def clear_another_winner(self, best: Recipe) -> None:
        """Delete the run of a winner that was interrupted before it read the test, and has been beaten since."""
        from hf_finetune.training.same_run import differences

        written = self.best / "recipe.yaml"
        if not self.test_is_read and written.is_file() and differences(load_recipe(str(written)), best):
            shutil.rmtree(self.best)

    def _refuse_strangers(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"out={self.path} is a file. Give another out=DIR.")
        known = {".lock", "trials", self.space.name, self.shipped.name}
        left = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        strange = sorted(name for name in left if name not in known and not name.startswith("."))
        if strange and not self.shipped.is_file():
            raise UserError(
                f"out={self.path} exists and holds no search (first: {strange[0]}); it is never overwritten. Give "
                "another out=DIR."
            )

    def _check_same(self, recipe: Recipe, space: Space) -> None:
        from hf_finetune.training.same_run import differences

        different = differences(load_recipe(str(self.shipped)), recipe)
        there, here = read_space(str(self.space), recipe).written(), space.written()
        keys = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        different += [f"space {key}: there {there.get(key)}, here {here.get(key)}" for key in keys]
        if different:
            shown = "\n".join(f"  {line}" for line in different[:10])
            raise UserError(f"out={self.path} holds another search. What differs:\n{shown}\nGive another out=DIR.")


def _yaml(space: Space) -> str:
    return write_yaml(space.written())
