"""WebDataset shards: tar archives in which neighbouring files of one name, but for the ending, are a sample.

Fields are decoded as the `webdataset` builder of `datasets` does, of the kinds below alone: others are left out, and
so nothing that a stranger has packed is unpickled. Where samples lie is found by going from header to header once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from datasets import Features, Image
from datasets.packaged_modules.webdataset.webdataset import WebDataset, base_plus_ext

from hf_finetune.data.shards import check_chunk, open_file
from hf_finetune.data.shards_cut import CutShards, Values
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_DECODED = ("txt", "text", "transcript", "cls", "cls2", "index", "inx", "id", "json", "jsn")
_RECORDS = ("json", "jsn")
_PICTURES = frozenset(WebDataset.IMAGE_EXTENSIONS)
_ROWS, _BYTES = 256, 1 << 22  # of a chunk, at most
_PASSED_OVER = ".__passed_over__"


class TarRows(CutShards):
    """The samples of tar archives; see `CutShards`. A record of JSON gives a column for each of its keys, such as
    `json.label`; of given features those of fields that are read are taken.
    """

    kind, head = "a tar archive of samples (WebDataset)", 5  # samples, as in `datasets`

    @classmethod
    def cut(cls, file: str) -> list[list[int]]:
        """See `CutShards`."""
        with open_file(file) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            found = list(_chunks(file, archive))
        if not found:
            raise DataError(f"{file}: no sample (files such as 0001.jpg and 0001.cls, one after the other) is in it.")
        return found

    def rows(self, chunk: int, columns: frozenset[str] | None = None) -> Iterator[Values]:
        """See `CutShards`."""
        number, begin, end = self.places[chunk].tolist()
        file = self.files[number]
        fields: Any = None if columns is None else {name.partition(".")[0] for name in columns} | columns
        with open_file(file) as opened:
            opened.seek(begin)
            if self.strange:  # one request, not one for each header
                begin, end, part = 0, end - begin, io.BytesIO(opened.read(end - begin))
            else:  # what is not asked for is not read: labels are, without the images
                part = opened
            with tarfile.open(fileobj=part, mode="r:") as archive:
                for sample in WebDataset._get_pipeline_from_tar(file, _members(archive, fields, end)):
                    yield _flat(sample)

    def _features(self, given: Features | None) -> Features:
        told = self._told()
        return Features({name: (given or told).get(name, feature) for name, feature in told.items()})

    def _told(self) -> Features:
        return Features({name: Image() if _is_picture(name) else of for name, of in super()._told().items()})


def _is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _PICTURES


def _members(archive: tarfile.TarFile, fields: Any, end: int) -> Iterator[tuple[str, Any]]:
    """Names and contents of the files that are read, as `WebDataset` takes them; one without content for each other.

    Without it a sample of which nothing is asked for would be no row.
    """
    for member in archive:
        if member.offset >= end:
            return
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


def _chunks(file: str, archive: tarfile.TarFile) -> Iterator[list[int]]:
    """From header to header: where each chunk begins and ends in the file, and how many samples it has."""
    key, begin, rows, end = None, 0, 0, 0
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]
        if _field_of(member) is None:
            continue
        if member.sparse is not None:  # type: ignore[attr-defined]
            raise DataError(f"{file}: {shown(member.name)} is a file with holes (sparse), which are not unpacked here.")
        name = base_plus_ext(member.name)[0]
        if name != key:
            if rows and (rows >= _ROWS or member.offset - begin >= _BYTES):
                yield [begin, member.offset, rows]
                rows = 0
            begin = member.offset if not rows else begin
            key, rows = name, rows + 1
        end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        check_chunk(file, member.size, "a file in it")
    if rows:
        yield [begin, end, rows]
