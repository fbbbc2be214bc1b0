"""Files of one JSON record a line, read some lines at a time; where lines begin is found by looking through once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features

from hf_finetune.data.kinds import kind_of
from hf_finetune.data.shards import Shards, kept_index, of_each, open_file
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_BLOCK = 1 << 24  # bytes read at once while lines are counted
_CHUNK = 1 << 20  # bytes of lines that are read together, about
_HEAD = 200  # records that tell the columns' types


class JsonRows(Shards):
    """The records of JSON-lines files.

    Args:
        files: of one data set.
        features: in place of those that the first records tell.

    Raises:
        DataError: a file does not hold a record a line.
    """

    def __init__(self, files: Sequence[str], features: Features | None = None) -> None:
        indices = of_each(_index, files)
        places = [(number, begin, end) for number, found in enumerate(indices) for begin, end, _ in found]
        rows = [count for found in indices for _, _, count in found]
        if not places:
            raise DataError(f"{files[0]}: no rows.")
        super().__init__(files, Features(), places, rows, float(4 * _CHUNK))
        self.features = features or self._told()

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """See `RowSource`."""
        records = self._records(chunk)
        schema = self.features.arrow_schema
        try:
            arrays = [pa.array([row.get(name) for row in records], schema.field(name).type) for name in columns]
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(
                f"{self.file_of(chunk)}: {shown(error, 300)}. A column has values of another type than in the first "
                f"{_HEAD} records."
            ) from error
        return pa.table(dict(zip(columns, arrays, strict=True)))

    def _records(self, chunk: int) -> list[dict[str, Any]]:
        number, begin, end = self.places[chunk].tolist()
        file = self.files[number]
        with open_file(file) as opened:
            opened.seek(begin)
            lines = [line for line in opened.read(end - begin).split(b"\n") if line not in (b"", b"\r")]
        return [_record(line, file) for line in lines]

    def _told(self) -> Features:
        head = self._records(0)[:_HEAD]
        names = dict.fromkeys(name for record in head for name in record)
        try:
            return Dataset.from_dict({name: [record.get(name) for record in head] for name in names}).features
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"{self.files[0]} cannot be read as json: {shown(error, 300)}") from error


def _record(line: bytes, file: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{file}: a line is no JSON record ({shown(error, 100)}): {shown(line)}") from error
    if not isinstance(record, dict):
        raise DataError(f"{file}: a line is no record but {type(record).__name__}: {shown(line)}")
    return record


def _index(file: str) -> list[list[int]]:
    with open_file(file) as opened:
        head = opened.read(512)
    kind = kind_of(head, pictures=True)
    if kind or head.lstrip().startswith(b"["):
        what = kind or "one JSON list; data.streaming=true reads one record a line (.jsonl)"
        raise DataError(f"{file}: this is {what}.")
    return kept_index(file, _lines)


def _lines(file: str) -> list[list[int]]:
    """Of each chunk where it begins and ends in the file, and how many records it has; blank lines are none."""
    found: list[list[int]] = []
    with open_file(file) as opened:
        place, left = 0, b""
        while block := opened.read(_BLOCK):
            text = left + block
            whole = text.rfind(b"\n") + 1
            found += _chunks(text[:whole], place)
            place, left = place + whole, text[whole:]
        if left:
            found += _chunks(left + b"\n", place)
    return found


def _chunks(text: bytes, place: int) -> list[list[int]]:
    letters = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(letters == 10)
    if not len(ends):
        return []
    lengths = np.diff(ends, prepend=-1) - 1
    is_row = (lengths > 1) | ((lengths == 1) & (letters[np.maximum(ends - 1, 0)] != 13))
    last = np.append(np.flatnonzero(np.diff(ends // _CHUNK)), len(ends) - 1)  # line that each chunk ends with
    rows = np.diff(np.cumsum(is_row)[last], prepend=0)
    stops = ends[last] + 1
    starts = np.concatenate([[0], stops[:-1]])
    return [[place + int(a), place + int(b), int(n)] for a, b, n in zip(starts, stops, rows, strict=True) if n]
