"""Comma separated text and its relatives as one table; what cannot be read is named by its rows."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import IO, Any, cast

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from pyarrow import csv

from hf_finetune.console import say
from hf_finetune.data.kinds import kind_of
from hf_finetune.data.legible import is_utf8
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_SEPARATORS = (",", ";", "\t", "|")
_LARGEST_BLOCK = 2**31 - 1
_HEAD = 1 << 16  # bytes that are looked at first
_NAMED = 10  # rows that an error names


def read_separated(path: Path, separator: str) -> Dataset:
    """Read a csv or tsv file, plain or compressed by gzip.

    Unlike pandas it keeps whole numbers whole beside a gap (a missing class does not turn classes into regression) and
    leaves texts such as "None" or "NA" alone. The whole file is one block: types are decided by every row. It is UTF-8,
    or UTF-16 with its mark; where the first line holds another separator and not this one, that one is taken.

    Raises:
        DataError: the file is empty, damaged, of another kind or encoding, its rows are uneven or two columns have one
        name; with the rows.
    """
    try:
        head = head_of(path)
        if not head.removeprefix(codecs.BOM_UTF8).strip():
            raise DataError(f"{path}: the file is empty.")
        if kind := kind_of(head, pictures=True):
            raise DataError(f"{path}: this is {kind}.")
        encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
        if encoding == "utf-8" and _is_unmarked_utf16(head[:1000]):
            raise DataError(f"{path}: this looks like UTF-16 without its mark. Save it as UTF-8.")
        separator = _separator_of(path, head.decode(encoding, errors="replace"), separator)
        # UTF-16 grows by a half at most where it becomes UTF-8.
        table = _parse(path, separator, encoding, block=_size_of(path) * (1 if encoding == "utf-8" else 2))
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, EOFError, UnicodeError, zlib.error) as error:
        raise DataError(f"{path}: {shown(error, 400)}") from error
    table = _with_clean_names(path, table)
    _check_encoding(path, table)
    _check_repeated_header(path, table)
    return Dataset(datasets.table.InMemoryTable(table))


def head_of(path: Path) -> bytes:
    """The first bytes of a text, plain or compressed by gzip.

    Raises:
        OSError, EOFError: it cannot be unpacked.
    """
    with _opened(path) as text:
        return text.read(_HEAD)


def _size_of(path: Path) -> int:
    """Bytes of a text; a compressed one is unpacked to nowhere: `check_size` has seen that it fits into memory."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with _opened(path) as text:
        return sum(map(len, iter(lambda: text.read(1 << 20), b"")))


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _is_unmarked_utf16(head: bytes) -> bool:
    """Whether every second byte, and it alone, is mostly zero, as in the UTF-16 of Latin letters."""
    least, most = sorted((head[::2].count(0), head[1::2].count(0)))
    return 4 * most > len(head) and 8 * least < most


def _separator_of(path: Path, head: str, expected: str) -> str:
    """The separator of the first line: the expected one, or the only other one that is there."""
    line = next((line for line in head.splitlines() if line.strip()), "")
    if expected in line:
        return expected
    others = {separator: line.count(separator) for separator in _SEPARATORS if separator in line}
    if not others:
        return expected
    found = max(others, key=lambda separator: others[separator])
    say(f"note: {path.name} is separated by {_NAMES.get(found, repr(found))}, and read so.")
    return found


_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}


def _parse(path: Path, separator: str, encoding: str, block: int) -> pa.Table:
    def parse(**how: Any) -> pa.Table:
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(
                block_size=min(max(block + 1, 1 << 20), _LARGEST_BLOCK),
                encoding=how.get("encoding", encoding),
                use_threads=how.get("handler") is None,
            ),
            parse_options=csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=how.get("handler")
            ),
        )

    try:
        return parse()
    except pa.ArrowInvalid as error:
        uneven: list[Any] = []

        def note(row: Any) -> str:
            uneven.append(row)
            return "skip"

        try:
            # Again, one row after the other: only so it counts them. Any bytes are Latin-1.
            parse(handler=note, encoding="latin-1" if encoding == "utf-8" else encoding)
        except (pa.ArrowInvalid, UnicodeError):
            raise error from None
        if not uneven:
            raise
        raise DataError(_uneven_in_words(path, uneven)) from error


def _uneven_in_words(path: Path, rows: list[Any]) -> str:
    lines = [
        f"{path}: the first line has {rows[0].expected_columns} cells, and another number stands in {len(rows):,} of "
        "the rows (counted from 0, without the first line):"
    ]
    lines += [
        f"  row {row.number - 2}: {row.actual_columns}: {shown(_as_utf8(row.text), 100)}" for row in rows[:_NAMED]
    ]
    if len(rows) > _NAMED:
        lines.append(f"  ... and {len(rows) - _NAMED:,} more")
    if any((row.text or "").count('"') % 2 for row in rows):
        lines.append("A quote is opened and not closed.")
    lines.append(
        'A cell with a separator, a line break or a quote in it stands in double quotes; a quote inside is written "".'
    )
    return "\n".join(lines)


def _as_utf8(text: str) -> str:
    """A text that was read as Latin-1, or as it is where it was not."""
    try:
        return text.encode("latin-1").decode(errors="replace")
    except UnicodeEncodeError:
        return text


def _with_clean_names(path: Path, table: pa.Table) -> pa.Table:
    """The table without columns that have neither a name nor a value; names without spaces around them."""
    try:
        names = [name.strip() for name in table.schema.names]
    except UnicodeDecodeError:
        raise DataError(f"{path}: the first line, the columns' names, is not UTF-8. {_CONVERT}") from None
    kept = [place for place, name in enumerate(names) if name or table.column(place).null_count < len(table)]
    table, names = table.select(kept), [names[place] for place in kept]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{path}: {names.count(name)} columns are called '{shown(name)}': give each a name of its own."
            )
    return table.rename_columns(names)


_CONVERT = "Save the file as UTF-8; for one that Windows wrote: iconv -f WINDOWS-1252 -t UTF-8 OLD.csv > NEW.csv"


def _check_encoding(path: Path, table: pa.Table) -> None:
    """A column that is not UTF-8 is read as bytes."""
    for name in table.schema.names:
        if not pa.types.is_binary(table.schema.field(name).type):
            continue
        values = table.column(name).to_pylist()
        bad = [row for row, value in enumerate(values) if value is not None and not is_utf8(value)]
        lines = [f"  row {row}: {shown(values[row])}" for row in bad[:_NAMED]]
        more = [f"  ... and {len(bad) - _NAMED:,} more"] if len(bad) > _NAMED else []
        raise DataError(
            f"{path}: {len(bad):,} of {len(table):,} rows are not UTF-8 in the column '{name}' (rows are counted from "
            "0; shown as Latin-1):\n" + "\n".join([*lines, *more, _CONVERT])
        )


def _check_repeated_header(path: Path, table: pa.Table) -> None:
    """Files that were joined end to end leave the names of their columns among the rows, as a class of its own."""
    if len(table.schema) < 2 or not all(pa.types.is_string(field.type) for field in table.schema):
        return
    same = None
    for name in table.schema.names:
        equal = pc.equal(pc.utf8_trim_whitespace(table.column(name)), name)
        same = equal if same is None else pc.and_(same, equal)
    rows = [] if same is None else pc.indices_nonzero(same).to_pylist()
    if rows:
        told = ", ".join(map(str, rows[:_NAMED])) + (", ..." if len(rows) > _NAMED else "")
        raise DataError(
            f"{path}: the first line, the columns' names, stands again in {len(rows):,} of the rows ({told}; counted "
            "from 0): were files joined? Take these lines out, or give the files as a list."
        )
