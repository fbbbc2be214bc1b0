"""JSON that ends the process in pyarrow: brackets nested by tens of thousands, and a block whose first row is `null`.

It is looked for in the very bytes that pyarrow's reader is given, whatever the file is called, however it is packed and
whichever encoding its card says. The reader cuts them at line ends into blocks, which it parses side by side, and none
of which knows of the others.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hf_finetune.errors import DataError

DEEPEST = 500
_ESCAPED = re.compile(rb'\\["\\]')
_QUOTE, _LINE_END, _OPENING, _CLOSING = 1, 2, 3, 4
_KINDS = np.zeros(256, np.uint8)
for _bytes, _kind in ((b'"', _QUOTE), (b"\r\n", _LINE_END), (b"[{", _OPENING), (b"]}", _CLOSING)):
    _KINDS[list(_bytes)] = _kind
_STEP = np.zeros(5, np.int64)
_STEP[_OPENING], _STEP[_CLOSING] = 1, -1


@contextmanager
def safe_json() -> Iterator[None]:
    """In the block, pyarrow is given no JSON that it does not survive.

    Raises:
        DataError: from within the block, where there is such JSON.
    """
    from pyarrow import json

    read = json.read_json

    def checked(source: Any, read_options: Any = None, *more: Any, **options: Any) -> Any:
        if isinstance(source, io.BytesIO) and needs_one_block(text := source.getvalue()):
            threads = read_options is None or read_options.use_threads
            read_options = json.ReadOptions(use_threads=threads, block_size=max(len(text), 1))
        return read(source, read_options, *more, **options)

    json.read_json = checked
    try:
        yield
    finally:
        json.read_json = read


def needs_one_block(text: bytes) -> bool:
    """Refuse what pyarrow does not survive, and tell whether it must not cut the rest.

    A `null` at the beginning of a line in the middle of a value would be a block's first row.

    Raises:
        DataError: there is a row that is null, or brackets go too deep.
    """
    places, depths = _depths(text)
    # Whatever stands before, also more closing brackets than opening ones: a block begins anew.
    floor = np.minimum(np.minimum.accumulate(depths), 0) if len(depths) else depths
    if len(depths) and int((depths - floor).max()) > DEEPEST:
        raise DataError(f"JSON with brackets in brackets too deep: more than {DEEPEST}.")
    for place in _nulls(text):
        before = int(np.searchsorted(places, place))
        if not before or not depths[before - 1]:
            raise DataError("JSON with a row that is null, and rows are objects.")
        return True  # in one block nothing but the first row is a first row
    return False


def _depths(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where quotes, brackets and line ends are, and how deep it is behind each: int64, one dimension."""
    if b"\\" in text:
        text = _ESCAPED.sub(b"__", text)
    kinds = _KINDS[np.frombuffer(text, np.uint8)]
    places = np.flatnonzero(kinds)
    kinds = kinds[places]
    quotes = np.cumsum(kinds == _QUOTE)
    # No string goes on over the end of a line, where the next block may begin.
    before = np.maximum.accumulate(np.where(kinds == _LINE_END, quotes, 0)) if len(quotes) else quotes
    outside = (quotes - before) % 2 == 0
    return places, np.cumsum(np.where(outside, _STEP[kinds], 0))


def _nulls(text: bytes) -> Iterator[int]:
    """Where lines begin with `null`."""
    if b"null" not in text:
        return
    place = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    for line in text[place:].splitlines(keepends=True):
        if (row := line.lstrip()).startswith(b"null"):
            yield place + len(line) - len(row)
        place += len(line)
