"""What `predict` is given on the command line, as a list of images or texts, each with a name to call it by."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Image

from hf_finetune.data.columns import LABEL_NAMES, holds_paths, is_id
from hf_finetune.data.files import FORMATS, read_files
from hf_finetune.data.kinds import IMAGE_SUFFIXES
from hf_finetune.errors import DataError, UserError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data, Task

STANDARD_INPUT = "-"


@dataclass
class Inputs:
    """Values to predict.

    Args:
        names: what each is called in the output: a path, the text, or `file:row`.
        values: paths, texts, or cells of a table, which `read` reads when their turn comes.
        errors: row -> why it holds nothing to predict.
        files: the tables among them.
    """

    names: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def add(self, name: str, value: Any) -> None:
        """One more input."""
        self.names.append(name)
        self.values.append(value)

    def part(self, start: int, stop: int) -> Inputs:
        """Some inputs, their cells read: paths, encoded images, texts or pairs of texts."""
        errors = {row - start: reason for row, reason in self.errors.items() if start <= row < stop}
        return Inputs(self.names[start:stop], read(self.values[start:stop]), errors)


@dataclass(frozen=True)
class Cell:
    """A row of a table that stays on disk.

    Args:
        table: of the columns to read: one, or two for pairs.
        row: its number.
    """

    table: Dataset
    row: int


def read(values: Sequence[Any]) -> list[Any]:
    """Values with their cells read, those of one table together; an empty cell is an empty text."""
    found = list(values)
    tables: dict[int, list[int]] = {}
    for place, value in enumerate(found):
        if isinstance(value, Cell):
            tables.setdefault(id(value.table), []).append(place)
    for places in tables.values():
        table = found[places[0]].table
        columns = list(table[[found[place].row for place in places]].values())
        for place, *cells in zip(places, *columns, strict=True):
            texts = tuple("" if cell is None else cell for cell in cells)
            found[place] = texts[0] if len(texts) == 1 else texts
    return found


def gather_inputs(
    given: Sequence[str], task: Task, columns: Sequence[str] = (), trained_by: Data | None = None
) -> Inputs:
    """Everything the arguments name, in their order.

    Args:
        given: image files, folders of images (searched to any depth), globs, tables (csv, tsv, json, jsonl, parquet),
            `-` for lines of standard input; for text also .txt files, a text a line, and plain texts.
        task: what the model takes.
        columns: the table column to read, two for pairs of texts; found from the table where empty.
        trained_by: the data section that the model was trained by, if it is known; its columns are looked for first.

    Raises:
        UserError: an argument names nothing, a table's column is missing or ambiguous, or single texts are given where
            the model takes pairs.
    """
    inputs = Inputs()
    for argument in given or [STANDARD_INPUT]:
        found = _expand(argument, task)
        for item in found:
            if isinstance(item, Path) and _is_table(item):
                _add_table(inputs, item, task, columns, trained_by)
            elif isinstance(item, Path) and task == "text-classification":
                _add_lines(inputs, item.read_text(encoding="utf-8").splitlines())
            elif item == STANDARD_INPUT:
                _add_lines(inputs, sys.stdin.read().splitlines())
            else:
                inputs.add(str(item), str(item))
    if not inputs.values:
        raise UserError(f"There is nothing to predict in {' '.join(given) or 'standard input'}.")
    if trained_by is not None and trained_by.text_pair and any(map(_is_single, inputs.values)):
        raise UserError(
            f"The model takes pairs of texts ({trained_by.text}, {trained_by.text_pair}), and single texts were given. "
            "Give a table, and name its columns with --column A,B where they are called otherwise."
        )
    return inputs


def _is_single(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Cell) and len(value.table.column_names) == 1)


def _expand(argument: str, task: Task) -> Iterable[Path | str]:
    """An argument as paths, or as itself where it is a text or standard input."""
    if argument == STANDARD_INPUT:
        return [argument]
    path = Path(argument)
    is_short = len(argument) < 1024  # longer texts are no file names, and asking the system fails
    if is_short and path.is_dir():
        return _files_of(path, task)
    if is_short and path.is_file():
        return [path]
    matches = sorted(glob.glob(argument, recursive=True)) if is_short else []  # noqa: PTH207 (absolute patterns too)
    if glob.has_magic(argument) and matches:
        return [item for match in matches for item in _expand(match, task)]
    is_text = task == "text-classification"
    ends_like_file = is_short and " " not in argument and path.suffix.lower() in (*FORMATS, *IMAGE_SUFFIXES, ".txt")
    if glob.has_magic(argument) and (ends_like_file or not is_text):
        raise UserError(f"{argument}: the pattern matches no file.")
    if ends_like_file and (is_text or _is_table(path)):
        raise UserError(f"{argument}: there is no such file.")
    return [argument]


def _files_of(folder: Path, task: Task) -> list[Path]:
    endings = IMAGE_SUFFIXES if task == "image-classification" else (".txt",)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not files:
        raise UserError(f"{folder}: the folder holds no {'image' if task == 'image-classification' else '.txt'} file.")
    return files


def _is_table(path: Path) -> bool:
    return Path(path.name.lower().removesuffix(".gz")).suffix in FORMATS


def _add_lines(inputs: Inputs, lines: Iterable[str]) -> None:
    """Texts or paths, one a line; empty lines keep their place as errors, so that rows still count the lines."""
    for line in lines:
        if not line.strip():
            inputs.errors[len(inputs.values)] = "the line is empty"
        inputs.add(line, line)


def _add_table(inputs: Inputs, path: Path, task: Task, columns: Sequence[str], trained_by: Data | None) -> None:
    table = read_files([path])
    chosen = _columns_of(table, path, task, columns or _as_trained(table, trained_by), trained_by)
    if task == "image-classification" and isinstance(table.features[chosen[0]], Image):
        table = table.cast_column(chosen[0], Image(decode=False))
    table = table.select_columns(chosen)
    inputs.files.append(path)
    for row, empty in enumerate(_empty(table)):
        if empty:
            inputs.errors[len(inputs.values)] = "the cell is empty"
        inputs.add(f"{path}:{row}", Cell(table, row))


def _empty(table: Dataset) -> Iterator[bool]:
    """Of each row, whether a cell holds nothing; read a batch at a time."""
    for rows in table.with_format("arrow").iter(batch_size=256):
        nulls = [column.is_null().to_pylist() for column in rows.columns]
        yield from (any(cells) for cells in zip(*nulls, strict=True))


def _as_trained(table: Dataset, trained_by: Data | None) -> list[str]:
    """The columns that the model was trained by; none where the table calls them otherwise."""
    if trained_by is None:
        return []
    names = [name for name in (trained_by.image, trained_by.text, trained_by.text_pair) if name]
    return names if trained_by.text_pair or all(name in table.column_names for name in names) else []


def _columns_of(
    table: Dataset, path: Path, task: Task, asked: Sequence[str], trained_by: Data | None = None
) -> list[str]:
    missing = [name for name in asked if name not in table.column_names]
    if missing:
        other = " Name both texts with --column A,B." if len(asked) > 1 else ""
        raise DataError(
            f"{path} has no column '{missing[0]}'. Its columns are: {', '.join(table.column_names)}.{other}"
        )
    if asked:
        return list(asked)
    fits = _holds_image if task == "image-classification" else _holds_text
    found = [name for name in table.column_names if fits(table, name)]
    if len(found) > 1:
        label = trained_by.label if trained_by is not None else None
        found = [name for name in found if name != label and name not in LABEL_NAMES and not is_id(name)] or found
    if len(found) != 1:
        kind = "images" if task == "image-classification" else "texts"
        which = (
            f"{len(found)} columns could hold the {kind} ({', '.join(found)})" if found else f"no column holds {kind}"
        )
        raise DataError(
            f"{path}: {which}. Say which with --column NAME{', or --column A,B for pairs' if kind == 'texts' else ''}. "
            f"Its columns are: {', '.join(table.column_names)}."
        )
    return found


def _holds_image(table: Dataset, name: str) -> bool:
    feature = table.features[name]
    is_record = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    is_bytes = getattr(feature, "dtype", "") in ("binary", "large_binary")
    return isinstance(feature, Image) or is_record or is_bytes or holds_paths(table, name)


def _holds_text(table: Dataset, name: str) -> bool:
    return getattr(table.features[name], "dtype", "") in ("string", "large_string", "string_view")
