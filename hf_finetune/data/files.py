"""csv, tsv, json, jsonl and parquet files as one table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from hf_finetune.data.columns import holds_paths
from hf_finetune.data.json_nesting import safe_json
from hf_finetune.data.json_rows import check_json
from hf_finetune.data.kinds import kind_of_file
from hf_finetune.data.legible import bad_bytes_named
from hf_finetune.data.separated import read_separated
from hf_finetune.data.shown import shown
from hf_finetune.data.sizes import check_size
from hf_finetune.disk import of_a_disk
from hf_finetune.errors import DataError

# How each ending is read.
FORMATS = {".csv": ",", ".tsv": "\t", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_IN_MEMORY = 2**28  # bytes of a packed table that is read whole, before it must not be a hundred times its file


def read_files(files: Sequence[Path]) -> Dataset:
    """Read files of one format, in order, as one data set.

    Raises:
        DataError: an unknown ending, several formats at once, different columns, no rows, or a file that cannot be
        parsed.
    """
    readers = {_format_of(path) for path in files}
    if len(readers) > 1:
        raise DataError(
            f"The files are of different formats: {', '.join(sorted({path.suffix for path in files}))}. Give one."
        )
    reader = readers.pop()
    parts: list[Dataset] = []
    for path in files:
        check_size(path, _IN_MEMORY if reader in (",", "\t") else None)
        part = _read_with_datasets(reader, path) if reader in ("json", "parquet") else read_separated(path, reader)
        if parts and part.column_names != parts[0].column_names:
            raise DataError(f"{path} has the columns {part.column_names}; {files[0]} has {parts[0].column_names}.")
        with bad_bytes_named({str(path): part}):
            parts.append(_anchor_paths(part, path.parent))
    try:
        whole = datasets.concatenate_datasets(parts)
    except (ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"The files' columns are of different types: {error}") from error
    if not len(whole):
        raise DataError(f"{', '.join(map(str, files[:3]))}: no rows.")
    return whole


def _format_of(path: Path) -> str:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        raise DataError(f"{path}: files ending in '{path.suffix}' cannot be read; {', '.join(FORMATS)} can.")
    return FORMATS[suffix]


def _anchor_paths(table: Dataset, folder: Path) -> Dataset:
    """Paths of images are meant from the folder of the file that names them."""
    features = table.features
    for name in [column for column in features if holds_paths(table, column, features)]:
        paths = [None if not value else str(folder / value) for value in table[name]]
        place = table.column_names
        table = table.remove_columns(name).add_column(name, paths).select_columns(place)
    return table


def _read_with_datasets(reader: str, path: Path) -> Dataset:
    size = path.stat().st_size
    if not size:
        raise DataError(f"{path}: the file is empty.")
    kind = kind_of_file(path, pictures=True)
    if kind and not kind.startswith((reader, "gzip" if path.suffix.lower() == ".gz" else reader)):
        raise DataError(f"{path}: this is {kind}.")
    if reader == "json":
        check_json(path)
    elif _is_without_rows(path):
        raise DataError(f"{path}: no rows.")
    try:
        with safe_json():
            return datasets.load_dataset(reader, data_files={"train": str(path)}, split="train")
    except Exception as error:  # the builders raise errors of many kinds, with the reason in the cause
        if (disk := of_a_disk(error, [Path(datasets.config.HF_DATASETS_CACHE)])) is not None:
            raise disk from error
        raise DataError(f"{path} cannot be read as {reader}: {reason_of(error)}") from error


def _is_without_rows(path: Path) -> bool:
    with suppress(pa.ArrowInvalid, OSError):  # what is wrong with it is told when it is read
        return bool(pq.read_metadata(path).num_rows == 0)
    return False


def reason_of(error: BaseException) -> str:
    """The first cause of an error of `datasets`, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shown(" ".join(str(error).split()) or type(error).__name__, 400)
