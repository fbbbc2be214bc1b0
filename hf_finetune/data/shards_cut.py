"""Files that do not say where their rows are: a look through each of them tells, once, and cuts it into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features
from datasets.features.features import get_nested_type

from hf_finetune.data.shards import Shards, as_shard, kept_index, of_each
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

Values = dict[str, Any]


class CutShards(Shards):
    """What JSON lines and tars have in common: rows are made one by one, as Python's values.

    Args:
        files: of one data set.
        features: in place of those that the first rows tell.

    Raises:
        DataError: a file does not hold such rows.
    """

    kind: ClassVar[str]
    """In words, behind `cannot be read as`."""
    head: ClassVar[int]
    """Rows that tell the columns' types."""

    def __init__(self, files: Sequence[str], features: Features | None = None) -> None:
        indices = of_each(self._index, files)
        places = [(number, begin, end) for number, found in enumerate(indices) for begin, end, _ in found]
        rows = [count for found in indices for _, _, count in found]
        weight = sum(end - begin for _, begin, end in places) / max(1, len(places))
        super().__init__(files, Features(), places, rows, weight)
        self.features = self._features(features)

    @classmethod
    def check(cls, file: str) -> None:
        """Refuse, by its first bytes, what is of another kind."""

    @classmethod
    def cut(cls, file: str) -> list[list[int]]:
        """Of each chunk where it begins and ends in the file, and how many rows it has."""
        raise NotImplementedError

    def rows(self, chunk: int, columns: frozenset[str] | None = None) -> Iterable[Values]:
        """The rows of a chunk, with some of their columns at least; with all if None."""
        raise NotImplementedError

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """See `RowSource`."""
        file = self.file_of(chunk)
        with as_shard(file, self.kind):
            rows = list(self.rows(chunk, frozenset(columns)))
        try:
            arrays = [self._array(name, [row.get(name) for row in rows]) for name in columns]
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{file}: {shown(error, 300)}. A column has values of another type than in the first {self.head} rows, "
                "or than the data set's README says."
            ) from error
        return pa.table(dict(zip(columns, arrays, strict=True)))

    def _array(self, name: str, values: list[Any]) -> pa.Array:
        feature = self.features[name]
        if isinstance(feature, ClassLabel) and any(isinstance(value, str) for value in values):
            return feature.cast_storage(pa.array(values))  # by name, and the README has their list
        return pa.array(values, get_nested_type(feature))

    def _features(self, given: Features | None) -> Features:
        return given or self._told()

    def _told(self) -> Features:
        with as_shard(self.files[0], self.kind):
            head = [row for _, row in zip(range(self.head), self.rows(0), strict=False)]
        names = dict.fromkeys(name for row in head for name in row)
        try:
            return Dataset.from_dict({name: [row.get(name) for row in head] for name in names}).features
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{self.files[0]}: a column has values of different types in the first {self.head} rows: "
                f"{shown(error, 300)}"
            ) from error

    @classmethod
    def _index(cls, file: str) -> list[list[int]]:
        with as_shard(file, cls.kind):
            cls.check(file)
            return kept_index(file, cls.cut)
