"""A split whose rows stay in their files: addressed by number like any other, read a chunk at a time.

Every order of its rows is possible, and `training/stream_order.py` makes the one in which each chunk is read once. So
a pass, its place in a pass and its rows are what they are with rows in memory, for the Trainer as for a resumed run.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, Image, Value

from hf_finetune.data.columns import Columns, is_list
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.shards import RowSource
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

LANES, EACH_STEP = 64, 8  # open chunks, fewer where they are large; from how many of them a step takes its rows
HELD_BYTES = 2**30  # of all open chunks together, about


@dataclass(frozen=True)
class Row:
    """A row as it was read.

    Args:
        id: its number in the source.
        values: image ({"bytes", "path"}), or text and perhaps text_pair.
        label: encoded; None where there is none.
        fault: why it has no label.
    """

    id: int
    values: dict[str, Any]
    label: Any
    fault: str | None


class StreamedRows:
    """The rows of a source that train, as far as needed with the manners of a `datasets.Dataset`.

    Args:
        source: of the rows.
        name: of the split.
        columns: where image or text and label stand.
        labels: what the model answers.
        chunks: that are used; all if None.
        left_out: of a chunk, which of its rows (counted in it, ascending) are not used.
        on_error: what is done about a row that cannot be used.
        sample: encoded labels of some rows, from all over the split.
    """

    def __init__(
        self,
        source: RowSource,
        name: str,
        columns: Columns,
        labels: LabelSpace,
        *,
        chunks: np.ndarray | None = None,
        left_out: Mapping[int, np.ndarray] | None = None,
        on_error: str = "raise",
        sample: Sequence[Any] = (),
    ) -> None:
        self.source, self.name, self.columns, self.labels = source, name, columns, labels
        self.on_error, self.sample = on_error, list(sample)
        self.chunks = np.arange(len(source.sizes)) if chunks is None else chunks
        self._left_out = dict(left_out or {})
        counts = source.sizes.copy()
        for chunk, offsets in self._left_out.items():
            counts[chunk] -= len(offsets)
        counts = counts[self.chunks]
        self.ends = np.cumsum(counts)
        """Rows of this split up to the end of each of its chunks, (chunks,)."""
        self._starts = self.ends - counts
        self._begins = np.concatenate([[0], np.cumsum(source.sizes)])
        self._inputs = {role: at for role in ("image", "text", "text_pair") if (at := getattr(columns, role))}
        # Beside the open ones, chunks of which another reader has the rest.
        open_ones = min(LANES, int(HELD_BYTES / max(self.weight, 1.0)))
        self._most = max(EACH_STEP, open_ones) + EACH_STEP
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._served: Counter[int] = Counter()

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def weight(self) -> float:
        """Bytes of a chunk in memory, about."""
        return float(getattr(self.source, "weight", 0.0))

    @property
    def cache_files(self) -> list[dict[str, str]]:
        """None: the rows lie in files of their own."""
        return []

    @property
    def places(self) -> list[str]:
        """One of the files that the rows lie in."""
        return list(getattr(self.source, "files", ()))[:1]

    @property
    def features(self) -> Features:
        """Of the inputs; labels are encoded as they are read."""
        kinds = {"image": Image(decode=False), "text": Value("string"), "text_pair": Value("string")}
        return Features({"id": Value("int64"), **{role: kinds[role] for role in self._inputs}})

    @property
    def column_names(self) -> list[str]:
        """As of a split in memory."""
        return ["id", *self._inputs, "label"]

    def ids(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The numbers in the source of rows of this split, without reading them."""
        places, offsets = self._places(np.asarray(rows, dtype=np.int64))
        chunks = self.chunks[places]
        kept = [self._kept(chunk)[offset] for chunk, offset in zip(chunks.tolist(), offsets.tolist(), strict=True)]
        return self._begins[chunks] + np.asarray(kept, dtype=np.int64)

    def read(self, rows: Sequence[int] | np.ndarray) -> list[Row]:
        """Rows by their numbers in this split.

        Raises:
            DataError: a file cannot be read, or names what is not in the data set; or a label is unknown.
        """
        places, offsets = self._places(np.asarray(rows, dtype=np.int64))
        found: list[Row | None] = [None] * len(places)
        for place in dict.fromkeys(places.tolist()):
            at = np.flatnonzero(places == place)
            chunk = int(self.chunks[place])
            within = offsets[at] if chunk not in self._left_out else self._kept(chunk)[offsets[at]]
            table = self._table(chunk, len(at))
            columns = {name: table.column(name).take(pa.array(within)).to_pylist() for name in table.column_names}
            for number, (target, offset) in enumerate(zip(at.tolist(), within.tolist(), strict=True)):
                row = {name: values[number] for name, values in columns.items()}
                found[target] = self._row(chunk, offset, row)
        return [row for row in found if row is not None]

    def place_of(self, row: int) -> str:
        """A row of the source in words, with its file."""
        return f"row {row} of {self.name}{self.file_of(row)}"

    def file_of(self, row: int) -> str:
        """The file that a row of the source lies in, in brackets; nothing where there are none."""
        chunk = int(np.searchsorted(self._begins, row, side="right")) - 1
        return f" ({self.source.file_of(chunk)})" if hasattr(self.source, "file_of") else ""

    def with_format(self, kind: Any = None) -> StreamedRows:
        """Itself: rows are plain Python values."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict(), "_served": Counter()}

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the place of its chunk in `chunks`, and its number among the rows of it that are used."""
        places = np.searchsorted(self.ends, rows, side="right")
        return places, rows - self._starts[places]

    def _kept(self, chunk: int) -> np.ndarray:
        every = np.arange(self.source.sizes[chunk])
        left = self._left_out.get(chunk)
        return every if left is None else np.delete(every, left)

    def _table(self, chunk: int, wanted: int) -> pa.Table:
        """A chunk, held until all of its rows were asked for, or so many others were after it."""
        table = self._tables.pop(chunk, None)
        if table is None:
            self._served.pop(chunk, None)
            names = list(dict.fromkeys([*self._inputs.values(), self.columns.label]))
            table = self.source.read(chunk, names)
            if table.num_rows != self.source.sizes[chunk]:
                raise DataError(f"{self.name}: a file has changed since its rows were counted. Start again.")
        self._served[chunk] += wanted
        if self._served[chunk] >= table.num_rows - len(self._left_out.get(chunk, ())):
            del self._served[chunk]
            return table
        self._tables[chunk] = table
        if len(self._tables) > self._most:
            self._tables.popitem(last=False)
        return table

    def _row(self, chunk: int, offset: int, row: dict[str, Any]) -> Row:
        number = int(self._begins[chunk]) + offset
        values = {role: row[column] for role, column in self._inputs.items()}
        if "image" in values:
            values["image"] = self._image(values["image"], chunk, number)
        try:
            label, fault = self._label(row[self.columns.label], number), None
        except (ValueError, TypeError) as error:
            label, fault = None, str(error)
        return Row(number, values, label, fault)

    def _image(self, value: Any, chunk: int, number: int) -> Any:
        """An image as it is stored; of the Hub, one that is in the data set."""
        if isinstance(value, bytes):
            value = {"bytes": value, "path": None}
        elif isinstance(value, str):
            folder = Path(self.source.file_of(chunk)).parent if hasattr(self.source, "file_of") else Path()
            value = {"bytes": None, "path": str(folder / value)}
        lacks = isinstance(value, dict) and value.get("bytes") is None and value.get("path")
        if lacks and getattr(self.source, "strange", False):
            raise DataError(
                f"{self.place_of(number)} names the file {shown(value['path'], 200)} of this machine, which is not of "
                "the data set."
            )
        return value

    def _label(self, value: Any, number: int) -> Any:
        plain = as_written(value, self.source.features[self.columns.label])
        try:
            return self.labels.encode(plain)
        except KeyError as error:
            raise DataError(
                f"{self.place_of(number)} has the label '{shown(error.args[0])}', which is not among the "
                f"{self.labels.num_labels:,} that were found in a part of the stream. A column of class labels "
                "(datasets.ClassLabel) tells all of them beforehand; or say data.streaming=false."
            ) from None


def as_written(value: Any, feature: Any) -> Any:
    """A label as `LabelSpace.encode` takes it: classes of a ClassLabel by name, texts without white space around."""
    if is_list(feature):
        return None if value is None else [as_written(item, feature.feature) for item in value]
    if isinstance(feature, ClassLabel) and value is not None:
        return feature.names[value] if 0 <= value < len(feature.names) else None
    return value.strip() if isinstance(value, str) else value


def is_streamed(split: Any) -> bool:
    """Whether rows of a split stay in their files."""
    return isinstance(split, StreamedRows)


def known_targets(split: Any) -> list[Any]:
    """Encoded labels of the training rows; of rows that are streamed, of some from all over the split."""
    return split.sample if isinstance(split, StreamedRows) else split["label"][:]
