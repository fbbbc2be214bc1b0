"""What must be known of a json file before it is read: that it holds rows, and which of them is none."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from pathlib import Path
from typing import IO, Any, cast

from hf_finetune.data.json_nesting import needs_one_block
from hf_finetune.data.separated import head_of
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_HALF_WITHIN = re.compile("[\ud800-\udfff]")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST = 2**30  # bytes of a line
_TOGETHER = 2**24  # bytes of lines that are looked at at once


def check_json(path: Path) -> None:
    """Stop at a file that does not hold rows: objects, one a line, or a list of them (or of texts).

    What pyarrow does not survive is looked for again in the bytes that it is given (`safe_json`); here it is said of
    which file.

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
    together: list[bytes] = []
    size = 0
    for row, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), b"")):
        if len(line) > _LONGEST:
            raise DataError(f"{path}: line {row} (counted from 0) has more than {_LONGEST:,} bytes.")
        if line.strip() == b"null":
            raise DataError(
                f"{path} cannot be read as json: line {row} (counted from 0) is null, and rows are objects."
            )
        together.append(line)
        size += len(line)
        if size > _TOGETHER:
            _check_nesting(path, together)
            together, size = [], 0
    _check_nesting(path, together)


def _check_nesting(path: Path, lines: list[bytes]) -> None:
    """Of many lines at once: brackets that nest need not close on theirs."""
    try:
        needs_one_block(b"".join(lines))
    except DataError as error:
        raise DataError(f"{path} cannot be read as json: {error}") from error


def _parsed(path: Path, text: bytes, which: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{path} cannot be read as json: {which} has brackets in brackets too deep.") from None
