"""What must be known of a json file before pyarrow reads it: some that are valid JSON end the whole process there."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from pathlib import Path
from typing import IO, Any, cast

from hf_finetune.data.separated import head_of
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_MANY = 500  # brackets of a row that is looked at for how deep they go
_HALF_WITHIN = re.compile("[\ud800-\udfff]")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST = 2**30  # bytes of a line


def check_json(path: Path) -> None:
    """Stop at a file that does not hold rows: objects, one a line, or a list of them (or of texts).

    pyarrow 26 reads beyond its memory where the first row is `null`, and beyond its stack where brackets nest by tens
    of thousands.

    Raises:
        DataError: the file is empty, no UTF-8, or holds something else than rows; with the row.
    """
    try:
        head = head_of(path)
        start = head.removeprefix(codecs.BOM_UTF8).lstrip()
        if not start:
            raise DataError(f"{path}: the file is empty.")
        if start[:1] not in (b"{", b"["):
            raise DataError(
                f"{path} cannot be read as json: it begins with '{shown(start[:20])}'. Rows are objects, "
                '{"text": ..., "label": ...}, one a line or in a list, in UTF-8.'
            )
        with cast(IO[bytes], gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")) as file:
            _check_list(path, file) if start[:1] == b"[" else _check_lines(path, file)
    except (OSError, EOFError, UnicodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as json: {shown(error, 300)}") from error


def _check_list(path: Path, file: IO[bytes]) -> None:
    content = file.read().removeprefix(codecs.BOM_UTF8)
    rows = _parsed(path, content, "The file")
    if not rows:
        raise DataError(f"{path}: no rows.")
    wanted = str if isinstance(rows[0], str) else dict
    for row, value in enumerate(rows):
        if not isinstance(value, wanted):
            raise DataError(
                f"{path} cannot be read as json: row {row} (counted from 0) is '{shown(value)}', and rows are objects."
            )
    if _HALF.search(content):
        _refuse_halves(path, rows)


def _refuse_halves(path: Path, rows: list[Any]) -> None:
    """Halves of surrogate pairs are no characters: on their way they would become others."""
    for row, value in enumerate(rows):
        if _HALF_WITHIN.search(json.dumps(value, ensure_ascii=False)):
            raise DataError(
                f"{path} cannot be read as json: row {row} (counted from 0) holds half of a surrogate pair: "
                f"{shown(value)}"
            )


def _check_lines(path: Path, file: IO[bytes]) -> None:
    for row, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), b"")):
        if len(line) > _LONGEST:
            raise DataError(f"{path}: line {row} (counted from 0) has more than {_LONGEST:,} bytes.")
        if line.strip() == b"null":
            raise DataError(
                f"{path} cannot be read as json: line {row} (counted from 0) is null, and rows are objects."
            )
        if line.count(b"[") + line.count(b"{") > _MANY:
            _parsed(path, line, f"Line {row} (counted from 0)")


def _parsed(path: Path, text: bytes, which: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{path} cannot be read as json: {which} has brackets in brackets too deep.") from None
