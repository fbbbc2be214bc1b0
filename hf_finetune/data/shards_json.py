"""Files of one JSON record a line, read some lines at a time; where lines begin is found by looking through once."""

from __future__ import annotations

import json

import numpy as np

from hf_finetune.data.kinds import kind_of
from hf_finetune.data.shards import check_chunk, open_file
from hf_finetune.data.shards_cut import CutShards, Values
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_BLOCK = 1 << 24  # bytes read at once while lines are counted
_CHUNK = 1 << 20  # bytes of lines that are read together, about


class JsonRows(CutShards):
    """The records of JSON-lines files; see `CutShards`."""

    kind, head = "JSON lines", 200

    @classmethod
    def check(cls, file: str) -> None:
        """See `CutShards`."""
        with open_file(file) as opened:
            begin = opened.read(512)
        if begin.startswith(b"\x1f\x8b"):
            raise DataError(f"{file} is packed (gzip), and is only read as a stream when it is unpacked.")
        kind = kind_of(begin, pictures=True)
        if kind or begin.lstrip().startswith(b"["):
            what = kind or "one JSON list; data.streaming=true reads one record a line (.jsonl)"
            raise DataError(f"{file}: this is {what}.")

    @classmethod
    def cut(cls, file: str) -> list[list[int]]:
        """See `CutShards`; blank lines are no rows."""
        found: list[list[int]] = []
        with open_file(file) as opened:
            place, left = 0, b""
            while block := opened.read(_BLOCK):
                text = left + block
                whole = text.rfind(b"\n") + 1
                found += _chunks(text[:whole], place)
                place, left = place + whole, text[whole:]
                check_chunk(file, len(left), "a line")
            if left:
                found += _chunks(left + b"\n", place)
        return found

    def rows(self, chunk: int, columns: frozenset[str] | None = None) -> list[Values]:
        """See `CutShards`."""
        number, begin, end = self.places[chunk].tolist()
        file = self.files[number]
        with open_file(file) as opened:
            opened.seek(begin)
            lines = [line for line in opened.read(end - begin).split(b"\n") if line not in (b"", b"\r")]
        return [_record(line, file) for line in lines]


def _record(line: bytes, file: str) -> Values:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: a line is no JSON record ({shown(error, 100)}): {shown(line)}") from error
    if not isinstance(record, dict):
        raise DataError(f"{file}: a line is no record but {type(record).__name__}: {shown(line)}")
    return record


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
