"""Arrow's own files: how many rows and bytes their batches say they become, before any of them is decompressed.

pyarrow does not tell; the few fields are read from the flatbuffers of the format
(https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"
# Numbers of fields in the tables of the format.
_HEADER_KIND, _HEADER = 1, 2  # Message
_DICTIONARIES, _BATCHES = 2, 3  # Footer
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3  # RecordBatch
_DATA = 1  # DictionaryBatch
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # kinds of headers
_BLOCK, _BUFFER = struct.Struct("<qixxxxq"), struct.Struct("<qq")


def arrow_sizes(path: Path) -> Iterator[tuple[int, int]]:
    """For each batch the rows and bytes that it becomes, up to where the file is broken; dictionaries have no rows."""
    import pyarrow as pa

    with suppress(pa.ArrowException, struct.error, IndexError, ValueError), pa.memory_map(str(path)) as file:
        yield from _sizes(file)


def _sizes(file: Any) -> Iterator[tuple[int, int]]:
    import pyarrow as pa

    if file.read(len(FILE)) == FILE:
        for place in _blocks(file):
            file.seek(place)
            yield from _of_message(pa.ipc.read_message(file))
        return
    file.seek(0)
    for message in pa.ipc.MessageReader.open_stream(file):
        yield from _of_message(message)


def _blocks(file: Any) -> list[int]:
    """Where the footer says that batches are: a reader follows it, and not what else is in the file."""
    end = file.size() - len(FILE) - 4
    file.seek(end)
    (size,) = struct.unpack("<i", file.read(4))
    file.seek(end - size)
    footer = memoryview(file.read(size))
    root = _table(footer, 0)
    return [block[0] for number in (_DICTIONARIES, _BATCHES) for block in _vector(footer, root, number, _BLOCK)]


def _of_message(message: Any) -> Iterator[tuple[int, int]]:
    data, body = memoryview(message.metadata), memoryview(message.body or b"")
    root = _table(data, 0)
    kind, header = _field(data, root, _HEADER_KIND), _field(data, root, _HEADER)
    if kind is None or header is None or data[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return
    batch, rows = _table(data, header), 0
    if data[kind] == _DICTIONARY_BATCH:
        inner = _field(data, batch, _DATA)
        if inner is None:
            return
        batch = _table(data, inner)
    elif (length := _field(data, batch, _LENGTH)) is not None:
        (rows,) = struct.unpack_from("<q", data, length)
    packed, size = _field(data, batch, _COMPRESSION) is not None, 0
    for start, stored in _vector(data, batch, _BUFFERS, _BUFFER):
        # A packed buffer begins with its length; -1: it is not packed after all.
        (becomes,) = struct.unpack_from("<q", body, start) if packed and stored >= 8 else (-1,)
        size += stored if becomes < 0 else becomes
    yield rows, size


def _table(data: memoryview, place: int) -> int:
    """Where the table is that is pointed at from a place."""
    return place + int(struct.unpack_from("<I", data, place)[0])


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Where a field of a table is; None where it is left out."""
    listed = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, listed)[0]:
        return None
    offset = int(struct.unpack_from("<H", data, listed + slot)[0])
    return table + offset if offset else None


def _vector(data: memoryview, table: int, number: int, kind: struct.Struct) -> Iterator[tuple[Any, ...]]:
    """The structures that a field lists."""
    if (field := _field(data, table, number)) is None:
        return
    start = _table(data, field)
    (count,) = struct.unpack_from("<I", data, start)
    yield from kind.iter_unpack(data[start + 4 : start + 4 + count * kind.size])
