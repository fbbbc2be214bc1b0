"""A table of predictions that grows on disk, and knows whose rows it holds.

Beside `OUT.part` lies `OUT.part.json`: how much of it is whole, and fingerprints of the model and of the inputs that
were read. Rows of another model or of inputs that have changed are never gone on with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hf_finetune.errors import UserError
from hf_finetune.evaluation.tables import as_rows, join_parquet
from hf_finetune.files import write_whole

if TYPE_CHECKING:
    from hf_finetune.evaluation.inputs import Inputs
    from hf_finetune.evaluation.predictor import Predictor

# What decides a folder's answers.
_DECIDING = (
    "*.safetensors",
    *("config.json", "adapter_config.json", "preprocessor_config.json", "tokenizer*.json", "recipe.yaml"),
)


class Partial:
    """See the module's first lines.

    Args:
        out: the file that it becomes; its ending is its format. Of parquet the part is a folder of small files.
        state: what `OUT.part.json` holds.
        inputs: fingerprint of the first so many inputs.
    """

    def __init__(self, out: str, state: dict[str, Any], inputs: Fingerprint) -> None:
        self.out = Path(out)
        self.path, self._note = _places(out)
        self._state = state
        self._inputs = inputs

    @classmethod
    def opened(cls, out: str, predictor: Predictor, found: Inputs, model: str) -> Partial:
        """The part that an earlier call left, or a new one.

        Raises:
            UserError: it is of another model, or of other inputs.
        """
        path, note = _places(out)
        inputs = Fingerprint(found)
        who = _of_model(predictor, model)
        if not note.is_file():
            _delete(path)
            return cls(out, {"model": who, "rows": 0, "bytes": 0, "errors": 0, "first_error": None}, inputs)
        state = json.loads(note.read_text(encoding="utf-8"))
        again = f"To begin anew, delete {note}; to keep it, give another --out."
        if state["model"] != who:
            raise UserError(
                f"{path} holds predictions of another model than {model}, or made with other settings. {again}"
            )
        if state["rows"] > len(found.names) or inputs.upto(state["rows"]) != state["inputs"]:
            raise UserError(
                f"{path} holds {state['rows']:,} predictions, and the inputs that they are of are not the first ones "
                f"given now, or have changed since. {again}"
            )
        # What a stop cut short: half a line, or a file of rows that were not counted.
        if path.is_file():
            os.truncate(path, state["bytes"])
        for file in path.glob("*.parquet"):
            if int(file.stem) >= state["rows"]:
                file.unlink()
        return cls(out, state, inputs)

    @property
    def rows(self) -> int:
        """Predictions that are on disk."""
        return int(self._state["rows"])

    @property
    def errors(self) -> int:
        """How many of them could not be read."""
        return int(self._state["errors"])

    @property
    def first_error(self) -> str | None:
        """The first of these, with its reason."""
        first: str | None = self._state["first_error"]
        return first

    def add(self, table: pd.DataFrame, first_error: str | None) -> None:
        """Write the next rows, and then that they are whole."""
        state = dict(self._state)
        if self.out.suffix.lower() == ".parquet":
            self.path.mkdir(exist_ok=True)
            write_whole(self.path / f"{self.rows:012}.parquet", lambda file: table.to_parquet(file, index=False))
        else:
            with self.path.open("ab") as file:
                file.write(as_rows(table, self.out.suffix.lower(), header=not self.rows).encode())
                file.flush()
                os.fsync(file.fileno())
                state["bytes"] = file.tell()
        state["rows"] += len(table)
        state["errors"] += int(table["error"].notna().sum())
        state["first_error"] = state["first_error"] or first_error
        state["inputs"] = self._inputs.upto(state["rows"])
        write_whole(self._note, json.dumps(state, ensure_ascii=False))
        self._state = state

    def finish(self) -> None:
        """Give the table its name."""
        if self.path.is_dir():
            files = sorted(self.path.glob("*.parquet"))
            write_whole(self.out, lambda path: join_parquet(files, path))
        else:
            self.path.replace(self.out)
        self._note.unlink(missing_ok=True)
        _delete(self.path)


class Fingerprint:
    """SHA-256 of the first so many inputs: names and texts; of files also size and time of the last change."""

    def __init__(self, found: Inputs) -> None:
        self._found = found
        self._hash = hashlib.sha256()
        self._done = 0
        for file in found.files:
            self._hash.update(_stamp(str(file)).encode())

    def upto(self, rows: int) -> str:
        """Of so many inputs; never fewer than before."""
        for row in range(self._done, rows):
            value = self._found.values[row]
            known = _stamp(value) if isinstance(value, str) else ""
            self._hash.update(f"{self._found.names[row]}\0{known}\n".encode("utf-8", "surrogatepass"))
        self._done = max(self._done, rows)
        return self._hash.hexdigest()


def _stamp(value: str) -> str:
    """A file's size and time of change; nothing for a text, whose name is all of it."""
    try:
        found = Path(value).stat()
    except (OSError, ValueError):  # a text is no path, and may be none that the system takes
        return ""
    return f"{value} {found.st_size} {found.st_mtime_ns}"


def _of_model(predictor: Predictor, model: str) -> str:
    """A fingerprint of the model and of how it reads: its files, or the commit on the Hub."""
    from hf_finetune.model import resolve_checkpoint

    settings = (predictor.max_length, predictor.window_overlap, predictor.tta, predictor.names)
    found = hashlib.sha256(repr((settings, predictor.loaded.revision)).encode())
    folders = [Path(resolve_checkpoint(model)), *getattr(predictor, "folds", ())]
    files = sorted(
        {file for pattern in _DECIDING for folder in folders if folder.is_dir() for file in folder.glob(pattern)}
    )
    for file in files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def _places(out: str) -> tuple[Path, Path]:
    return Path(f"{out}.part"), Path(f"{out}.part.json")


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
