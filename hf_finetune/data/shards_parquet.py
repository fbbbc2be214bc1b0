"""Parquet files read a row group at a time; how many rows each has stands in the file's last bytes."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from datasets.table import table_cast

from hf_finetune.data.kinds import kind_of_file
from hf_finetune.data.shards import Shards, as_shard, check_chunk, kept_places, of_each, open_file
from hf_finetune.data.shown import shown
from hf_finetune.data.sizes import becomes, may_grow
from hf_finetune.errors import DataError

_SIZED = re.compile(r"large_|_view")
_EMPTY_ROWS = 1_000_000  # of a row group, whatever its bytes
_OPEN = 80  # files that a process holds open


class ParquetRows(Shards):
    """The row groups of parquet files.

    Args:
        files: of one data set.
        features: in place of those that the files tell.

    Raises:
        DataError: a file is no parquet, or has other columns than the first, or a row group that no memory holds.
    """

    def __init__(self, files: Sequence[str], features: Features | None = None) -> None:
        groups = kept_places(files, _groups)
        schema = _footer(files[0])[0]
        told = features or Features.from_arrow_schema(schema)
        if lacking := [name for name in told if name not in schema.names]:
            raise DataError(
                f"{files[0]} has the columns {', '.join(map(shown, schema.names))}; the data set's README says that "
                f"there are {', '.join(map(shown, lacking))}."
            )
        weight = float(groups[:, 3].mean()) if len(groups) else 0.0
        super().__init__(files, told, groups[:, :2], groups[:, 2], weight)
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._process = os.getpid()
        self._measured: set[int] = set()

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """See `RowSource`."""
        file, names = self.file_of(chunk), list(columns)
        with as_shard(file, "parquet"):
            self._measure(chunk, names)
            found = self._file(file).read_row_group(int(self.places[chunk, 1]), columns=names, use_threads=False)
        found = found.select(names)  # as asked for, not as they stand
        wanted = Features({name: self.features[name] for name in names}).arrow_schema
        if found.schema.types == wanted.types:
            return found.cast(wanted)
        try:
            return table_cast(found, wanted)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"{file} has {_types(found.schema)}; {_types(wanted)} is what the first file or the data set's README "
                f"says: {shown(error, 300)}"
            ) from error

    def _measure(self, chunk: int, names: Sequence[str]) -> None:
        """Refuse a row group that repeats long values so often that memory would not hold them."""
        file, group = self.file_of(chunk), int(self.places[chunk, 1])
        metadata = self._file(file).metadata.row_group(group)
        columns = [metadata.column(place) for place in range(metadata.num_columns)]
        repeated = [found.path_in_schema for found in columns if may_grow(found)]
        repeated = [path for path in repeated if path in names or path.partition(".")[0] in names]
        if not repeated or chunk in self._measured:
            return
        self._measured.add(chunk)
        size = 0
        with open_file(file) as opened:  # as dictionaries the columns take no more memory than the file
            packed = pq.ParquetFile(opened, read_dictionary=repeated)
            for batch in packed.iter_batches(4096, [group], repeated, use_threads=False):
                size += sum(map(becomes, batch.columns))
                check_chunk(file, size, "a row group")

    def _file(self, file: str) -> pq.ParquetFile:
        if self._process != os.getpid():  # a loader's worker: the positions of open files are its parent's too
            self._open, self._process = OrderedDict(), os.getpid()
        if file not in self._open:
            if len(self._open) >= _OPEN:
                self._open.popitem(last=False)[1].close(force=True)
            self._open[file] = pq.ParquetFile(open_file(file))
        self._open.move_to_end(file)
        return self._open[file]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def _groups(files: Sequence[str]) -> np.ndarray:
    """Of each row group the number of its file, its own in it, its rows and its bytes, int64 (groups, 4)."""
    footers = of_each(_footer, files)
    first = footers[0][0]
    for file, (found, _) in zip(files, footers, strict=True):
        if not _alike(found, first):
            raise DataError(f"{file} has the columns {_types(found)}; {files[0]} has {_types(first)}.")
    groups = np.concatenate([found for _, found in footers])
    counts = [len(found) for _, found in footers]
    numbers, starts = np.repeat(np.arange(len(files)), counts), np.repeat(np.cumsum(counts) - counts, counts)
    return np.column_stack([numbers, np.arange(len(groups)) - starts, groups])


def _footer(file: str) -> tuple[pa.Schema, np.ndarray]:
    """Columns, and of each row group its rows and bytes, int64 (groups, 2)."""
    kind = None if "://" in file else kind_of_file(Path(file), pictures=True)
    if kind and not kind.startswith("parquet"):
        raise DataError(f"{file} cannot be read as parquet: {kind}")
    with as_shard(file, "parquet"), open_file(file) as opened:
        parquet = pq.ParquetFile(opened)
        schema, metadata = parquet.schema_arrow, parquet.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        found = [(group.num_rows, group.total_byte_size) for group in groups]
    for rows, size in found:
        check_chunk(file, size, "a row group")
        if rows > max(_EMPTY_ROWS, size):  # a row of any use takes a byte
            raise DataError(f"{file}: a row group says that it has {rows:,} rows in {size:,} bytes.")
    return schema, np.asarray(found, dtype=np.int64).reshape(-1, 2)


def _alike(one: pa.Schema, other: pa.Schema) -> bool:
    """Whether columns have the same names, in any order, and types, but for the length of texts; one may be empty."""
    plain = [{field.name: _SIZED.sub("", str(field.type)) for field in schema} for schema in (one, other)]
    same = plain[0].keys() == plain[1].keys()
    return same and all("null" in kinds or len(kinds) == 1 for kinds in ({p[name] for p in plain} for name in plain[0]))


def _types(schema: pa.Schema) -> str:
    return ", ".join(f"{shown(field.name)} ({shown(field.type)})" for field in schema)
