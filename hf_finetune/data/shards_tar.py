"""WebDataset shards: tar archives in which neighbouring files of one name, but for the ending, are a sample.

Fields are decoded as the `webdataset` builder of `datasets` does, of the kinds below alone: others are left out, and
so nothing that a stranger has packed is unpickled. Where samples lie is found by going from header to header once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Image
from datasets.packaged_modules.webdataset.webdataset import WebDataset, base_plus_ext

from hf_finetune.data.shards import Shards, check_chunk, kept_index, of_each, open_file
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_DECODED = ("txt", "text", "transcript", "cls", "cls2", "index", "inx", "id", "json", "jsn")
_RECORDS = ("json", "jsn")
_PICTURES = frozenset(WebDataset.IMAGE_EXTENSIONS)
_ROWS, _BYTES = 256, 1 << 22  # of a chunk, at most
_PASSED_OVER = ".__passed_over__"
_HEAD = 5  # samples that tell the columns, as in `datasets`
Values = dict[str, Any]


class TarRows(Shards):
    """The samples of tar archives. A record of JSON gives a column for each of its keys, such as `json.label`.

    Args:
        files: of one data set.
        features: in place of those that the first samples tell, for the fields that are read.

    Raises:
        DataError: a file is no tar archive of samples.
    """

    def __init__(self, files: Sequence[str], features: Features | None = None) -> None:
        indices = of_each(_index, files)
        places = [(number, begin, end) for number, found in enumerate(indices) for begin, end, _ in found]
        rows = [count for found in indices for _, _, count in found]
        weight = sum(end - begin for _, begin, end in places) / max(1, len(places))
        super().__init__(files, Features(), places, rows, weight)
        told = self._told()
        self.features = Features({name: (features or told).get(name, feature) for name, feature in told.items()})

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """See `RowSource`."""
        samples = list(self._samples(chunk, frozenset(columns)))
        schema = self.features.arrow_schema
        try:
            arrays = [pa.array([sample.get(name) for sample in samples], schema.field(name).type) for name in columns]
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(
                f"{self.file_of(chunk)}: {shown(error, 300)}. A field has values of another type than in the first "
                "samples."
            ) from error
        return pa.table(dict(zip(columns, arrays, strict=True)))

    def _samples(self, chunk: int, columns: frozenset[str] | None = None) -> Iterator[Values]:
        number, begin, end = self.places[chunk].tolist()
        file = self.files[number]
        with open_file(file) as opened:
            opened.seek(begin)
            part = io.BytesIO(opened.read(end - begin))
        fields: Any = None if columns is None else {name.partition(".")[0] for name in columns} | columns
        try:
            with tarfile.open(fileobj=part, mode="r:") as archive:
                for sample in WebDataset._get_pipeline_from_tar(file, _members(archive, fields)):
                    yield _flat(sample)
        except (tarfile.TarError, ValueError) as error:
            raise DataError(f"{file} cannot be read as a WebDataset shard: {shown(error, 300)}") from error

    def _told(self) -> Features:
        head = [sample for _, sample in zip(range(_HEAD), self._samples(0), strict=False)]
        names = dict.fromkeys(name for sample in head for name in sample)
        columns = {name: [sample.get(name) for sample in head] for name in names}
        try:
            found = Dataset.from_dict(columns).features
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"{self.files[0]}: fields of different types in the first samples: {error}") from error
        return Features({name: Image() if _is_picture(name) else feature for name, feature in found.items()})


def _is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _PICTURES


def _members(archive: tarfile.TarFile, fields: Any) -> Iterator[tuple[str, Any]]:
    """Names and contents of the files that are read, as `WebDataset` takes them; one without content for each other.

    Without it a sample of which nothing is asked for would be no row.
    """
    for member in archive:
        field = _field_of(member)
        if field is None:
            continue
        known = _is_picture(field) or field.rpartition(".")[2].lower() in _DECODED
        if known and (fields is None or field in fields):
            yield member.name, archive.extractfile(member)
        else:
            yield f"{member.name}{_PASSED_OVER}", io.BytesIO()
        archive.members = []  # type: ignore[attr-defined]  # else all headers are held


def _field_of(member: tarfile.TarInfo) -> str | None:
    if not member.isreg() or PurePosixPath(member.name).name.startswith((".", "__")):
        return None
    field: str | None = base_plus_ext(member.name)[1]
    return field


def _flat(sample: Values) -> Values:
    """Images as `datasets` stores them, records by their keys, without what only tells where the sample lay."""
    flat: Values = {}
    for name, value in sample.items():
        if name.startswith("__") or name.endswith(_PASSED_OVER):
            continue
        if _is_picture(name):
            flat[name] = {"bytes": value, "path": f"{sample['__key__']}.{name}"}
        elif name.rpartition(".")[2] in _RECORDS and isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _index(file: str) -> list[list[int]]:
    found = kept_index(file, _headers)
    if not found:
        raise DataError(f"{file}: no sample (files such as 0001.jpg and 0001.cls, one after the other) is in it.")
    return found


def _headers(file: str) -> list[list[int]]:
    """Of each chunk where it begins and ends in the file, and how many samples it has."""
    found: list[list[int]] = []
    key, begin, rows, end = None, 0, 0, 0
    try:
        with open_file(file) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]
                if _field_of(member) is None:
                    continue
                name = base_plus_ext(member.name)[0]
                if name != key:
                    if rows and (rows >= _ROWS or member.offset - begin >= _BYTES):
                        found.append([begin, member.offset, rows])
                        rows = 0
                    begin = member.offset if not rows else begin
                    key, rows = name, rows + 1
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                check_chunk(file, member.size, "a file in it")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{file} cannot be read as a tar archive: {shown(error, 300)}") from error
    return [*found, [begin, end, rows]] if rows else found
