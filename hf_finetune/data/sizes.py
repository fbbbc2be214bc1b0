"""Archives and tables from strangers: what they say they become, before anything is unpacked.

A few kilobytes can unpack to as many terabytes, a parquet file can say that one value stands a billion times, and a tar
that a file has holes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_finetune.data.arrow_sizes import FILE, STREAM, arrow_sizes
from hf_finetune.errors import DataError

GIB = 2**30
_USUAL = GIB  # what unpacks to less is never refused
_RATIO = 100  # times its file: text shrinks to a tenth, labels in a column to a fiftieth
_MOST_MEMBERS = 5_000_000  # of an archive
_CHUNK = 1 << 20
_LOOKED_THROUGH = GIB // 2  # larger parquet files are as large as what they hold, or no gift to anybody

_BLOCK = 512  # bytes of a tar's header

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda path: _by_arrow(path, "zstd"),
    b"\x04\x22\x4d\x18": lambda path: _by_arrow(path, "lz4"),
}
_UNMEASURED = {b"7z\xbc\xaf": "7z", b"Rar!": "rar"}


def check_size(path: Path, usual: int | None = None) -> None:
    """Refuse a file that unpacks to far more than it is.

    Args:
        path: any file; one that is neither packed nor a table of Arrow's is fine.
        usual: bytes that are always allowed; 1 GiB if None.

    Raises:
        DataError: it becomes more than a hundred times its size and more than `usual`, or more than the disk has room
            for; or that cannot be told.
    """
    usual = _USUAL if usual is None else usual
    try:
        with path.open("rb") as file:
            magic = file.read(_BLOCK)
        if magic.startswith(b"PK"):
            _zip(path, usual)
        elif magic.startswith(b"PAR1"):
            _parquet(path, usual)
        elif kind := next((kind for known, kind in _UNMEASURED.items() if magic.startswith(known)), None):
            raise DataError(f"{path}: what a {kind} archive holds is not known before it is unpacked: unpack it first.")
        elif opener := next((each for known, each in _OPENERS.items() if magic.startswith(known)), None):
            _packed(path, opener, usual)
            _tar(path, opener, usual)
        elif _is_tar(magic):
            _tar(path, lambda path: path.open("rb"), usual)
        elif _is_arrow(magic):
            _arrow(path, usual)
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError):
        return  # broken: whoever reads it says so, in the words of its format


def _allowed(path: Path, usual: int) -> int:
    return max(usual, _RATIO * path.stat().st_size)


def _refuse(path: Path, becomes: str, allowed: int) -> None:
    raise DataError(
        f"{path} has {path.stat().st_size:,} bytes and becomes {becomes}; at most {_RATIO} times a file's size, or "
        f"{allowed:,} bytes, are taken. If you know what it is, unpack it yourself."
    )


def _zip(path: Path, usual: int) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size, allowed = sum(member.file_size for member in members), _allowed(path, usual)
    if size > allowed or len(members) > _MOST_MEMBERS:
        _refuse(path, f"{size:,} bytes in {len(members):,} files", allowed)
    _room(path, size)


def _packed(path: Path, opener: Callable[[Path], Any], usual: int) -> None:
    """Unpacked to nowhere, and no further than is allowed."""
    size, allowed = 0, _allowed(path, usual)
    with opener(path) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > allowed:
                _refuse(path, f"more than {size:,} bytes", allowed)
    _room(path, size)


def _by_arrow(path: Path, kind: str) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression=kind)


def _is_tar(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _tar(path: Path, opener: Callable[[Path], Any], usual: int) -> None:
    """A member with holes (sparse) is larger than what the archive has of it."""
    with opener(path) as stream:
        if not _is_tar(stream.read(_BLOCK)):
            return
    size, count, allowed = 0, 0, _allowed(path, usual)
    with opener(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all
            size, count = size + member.size, count + 1
            if size > allowed or count > _MOST_MEMBERS:
                _refuse(path, f"more than {size:,} bytes in {count:,} files", allowed)
    _room(path, size)


def _is_arrow(magic: bytes) -> bool:
    """A file or a stream; old ones of these begin with a length, as other things may."""
    return magic.startswith((FILE, STREAM)) or 0 < int.from_bytes(magic[:4], "little") < 2**24


def _arrow(path: Path, usual: int) -> None:
    """What the batches say of their rows, and of buffers that are packed."""
    rows, size, allowed = 0, 0, _allowed(path, usual)
    for more_rows, more_bytes in arrow_sizes(path):
        rows, size = rows + more_rows, size + more_bytes
        if size > allowed or rows > max(1_000_000, size):
            _refuse(path, f"more than {size:,} bytes in {rows:,} rows", allowed)


def _room(path: Path, size: int) -> None:
    import datasets

    cache = Path(datasets.config.HF_DATASETS_CACHE)
    place = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), Path.cwd())
    free = shutil.disk_usage(place).free
    if size > free:
        raise DataError(f"{path} becomes {size:,} bytes, and the disk of {place} has room for {free:,}.")


def _parquet(path: Path, usual: int) -> None:
    """What the file says of its rows, and what columns that repeat their values become."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        allowed = _allowed(path, usual)
        columns = [column for number in range(metadata.num_row_groups) for column in _columns(metadata, number)]
        stored = sum(column.total_uncompressed_size for column in columns)
        # A row of any use takes a byte; a column of zeros alone takes none.
        if stored > allowed or metadata.num_rows > max(1_000_000, stored):
            _refuse(path, f"{metadata.num_rows:,} rows of {stored:,} bytes", allowed)
        repeated = sorted({column.path_in_schema for column in columns if may_grow(column)})
        if repeated and path.stat().st_size <= _LOOKED_THROUGH:
            _look_through(path, repeated, allowed)
    except pa.ArrowException:
        return  # broken: its reader says so


def _columns(metadata: Any, number: int) -> list[Any]:
    group = metadata.row_group(number)
    return [group.column(place) for place in range(group.num_columns)]


def may_grow(column: Any) -> bool:
    """Whether a column of a row group holds texts or bytes of which a dictionary may have one for very many rows.

    Args:
        column: its metadata, as of pyarrow.
    """
    return (
        column.physical_type == "BYTE_ARRAY"
        and any("DICTIONARY" in encoding for encoding in column.encodings)
        and column.num_values * column.total_uncompressed_size > 4 * GIB
    )


def _look_through(path: Path, repeated: list[str], allowed: int) -> None:
    """Read the columns as dictionaries, which take no more memory than the file, and add up what the rows become."""
    import pyarrow.parquet as pq

    file, size = pq.ParquetFile(path, read_dictionary=repeated), 0
    for batch in file.iter_batches(batch_size=4096, columns=repeated):
        size += sum(map(becomes, batch.columns))
        if size > allowed:
            _refuse(path, f"more than {size:,} bytes in {file.metadata.num_rows:,} rows", allowed)


def becomes(array: Any) -> int:
    """Bytes of an array of Arrow once its dictionaries are written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(pc.cast(pc.take(lengths, array.indices), "int64")).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(becomes, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return becomes(array.flatten())
    return int(array.nbytes)
