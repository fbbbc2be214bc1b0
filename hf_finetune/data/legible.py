"""Columns of text whose bytes are no text, as files of other programs may hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
from datasets import Dataset

from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_NAMED = 10  # rows that an error names


@contextmanager
def bad_bytes_named(splits: Mapping[str, Dataset]) -> Iterator[None]:
    """Where a text cannot be decoded inside the block, say in which rows of which column.

    Only then is every text looked at: where all is well this costs nothing.

    Args:
        splits: what is read inside the block, by what an error calls it.

    Raises:
        DataError: a column of text holds bytes that are not UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        for name, split in splits.items():
            for column in split.column_names:
                if rows := _bad_rows(split, column):
                    told = [f"  row {row}: {shown(content)}" for row, content in rows[:_NAMED]]
                    told += [f"  ... and {len(rows) - _NAMED:,} more"] if len(rows) > _NAMED else []
                    raise DataError(
                        f"{name}: {len(rows):,} of {len(split):,} rows are not UTF-8 in the column '{shown(column)}' "
                        "(rows are counted from 0; shown as Latin-1):\n" + "\n".join(told) + "\nWrite them as UTF-8."
                    ) from error
        raise DataError(f"{', '.join(splits)}: a text is not UTF-8: {shown(error, 200)}") from error


def _bad_rows(split: Dataset, column: str) -> list[tuple[int, bytes]]:
    stored = split.with_format("arrow")[:][column] if len(split) else pa.chunked_array([], pa.string())
    if not (pa.types.is_string(stored.type) or pa.types.is_large_string(stored.type)):
        return []
    try:
        stored.validate(full=True)
    except pa.ArrowInvalid:
        contents = stored.cast(pa.large_binary()).to_pylist()
        return [(row, content) for row, content in enumerate(contents) if content is not None and not is_utf8(content)]
    return []


def is_utf8(content: bytes) -> bool:
    """Whether bytes are text."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
