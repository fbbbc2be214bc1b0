"""Parquet files read a row group at a time; how many rows each has stands in the file's last bytes."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from hf_finetune.data.kinds import kind_of_file
from hf_finetune.data.shards import Shards, check_chunk, kept_places, of_each, open_file
from hf_finetune.data.shown import shown
from hf_finetune.data.sizes import check_size
from hf_finetune.errors import DataError

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
        told = features or Features.from_arrow_schema(_footer(files[0])[0])
        weight = float(groups[:, 3].mean()) if len(groups) else 0.0
        super().__init__(files, told, groups[:, :2], groups[:, 2], weight)
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._process = os.getpid()

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """See `RowSource`."""
        file = self.file_of(chunk)
        try:
            return self._file(file).read_row_group(int(self.places[chunk, 1]), columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read as parquet any more: {shown(error, 300)}") from error

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


def _groups(files: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Of each row group the number of its file, its own in it, its rows and its bytes."""
    footers = of_each(_footer, files)
    names = footers[0][0].names
    for file, (found, _) in zip(files, footers, strict=True):
        if found.names != names:
            raise DataError(f"{file} has the columns {found.names}; {files[0]} has {names}.")
    return [(number, at, *group) for number, (_, groups) in enumerate(footers) for at, group in enumerate(groups)]


def _footer(file: str) -> tuple[pa.Schema, list[tuple[int, int]]]:
    """Columns, and of each row group its rows and bytes."""
    local = "://" not in file
    if local:
        check_size(Path(file))
    try:
        with open_file(file) as opened:
            parquet = pq.ParquetFile(opened)
            schema, metadata = parquet.schema_arrow, parquet.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            found = [(group.num_rows, group.total_byte_size) for group in groups]
    except (pa.ArrowException, OSError) as error:
        kind = kind_of_file(Path(file), pictures=True) if local else None
        raise DataError(f"{file} cannot be read as parquet: {kind or shown(error, 300)}") from error
    for _, size in found:
        check_chunk(file, size, "a row group")
    return schema, [(rows, size) for rows, size in found]
