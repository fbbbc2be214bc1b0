"""Bad json, jsonl and parquet files, and damaged folders of `save_to_disk`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict

from .bad_case import Corpus, Given
from .bad_samples import ROWS, label, text, write

CORPUS = Corpus("json, parquet")
_TWO = "2 classes: neg, pos"
_GOOD: list[dict[str, Any]] = [{"text": text(number), "label": label(number)} for number in range(ROWS)]


def _lines(*bad: Any, good: list[dict[str, Any]] = _GOOD) -> str:
    parts = [json.dumps(row) for row in good] + [row if isinstance(row, str) else json.dumps(row) for row in bad]
    return "\n".join(parts) + "\n"


def _add(name: str, content: str | bytes, file: str = "a.jsonl", encoding: str = "utf-8", **expected: Any) -> None:
    CORPUS.add(f"{name}", lambda folder: write(folder, content, file, encoding), **expected)


_add("json cut off", json.dumps(_GOOD)[:-40], file="a.json", refused="a.json cannot be read as json: ")
_add("jsonl cut off", _lines()[:-12], refused="a.jsonl cannot be read as json: ")
_add("jsonl with a broken line", _lines('{"text": "w3", "label": pos}'), refused="a.jsonl cannot be read as json: ")
_add("jsonl that is empty", "", refused="the file is empty")
_add("json of no rows", "[]", file="a.json", refused="a.json")
_add("json of one empty object", "{}", file="a.json", refused="a.json|Which column")
_add("json of null", "null", file="a.json", refused="a.json cannot be read as json: it begins with 'null'")
_add("json of numbers", "[1, 2, 3]", file="a.json", refused="row 0 .* is '1', and rows are objects")
_add("json with null among its rows", json.dumps([None, *_GOOD]), file="a.json", refused="row 0 .* is 'None', and rows")
_add("jsonl with a line of null", _lines("null"), refused="line 24 .* is null, and rows are objects")
_add("json of texts", json.dumps([text(n) for n in range(9)]), file="a.json", refused="Which column is the label")
_add("json of columns", json.dumps({"text": ["w3"] * 9, "label": ["pos"] * 9}), file="a.json", refused="Which column")
_add("jsonl with a BOM", _lines(), encoding="utf-8-sig", says=_TWO)
_add("jsonl in UTF-16", _lines(), encoding="utf-16", refused="a.jsonl cannot be read as json: ")
_add("jsonl with blank lines", _lines().replace("\n", "\n\n"), says=_TWO)
_add("jsonl with rows without a text", _lines({"label": "pos"}), refused="row 24: the text is missing")
_add("jsonl with rows without a label", _lines({"text": "w3"}), refused="row 24: the label is missing")
_add("jsonl with more columns later", _lines({"text": "w3 w9", "label": "pos", "more": 1}), says=_TWO)
_add("jsonl with labels of mixed types", _lines({"text": "w3", "label": 1}), refused="holds values of different types")
_add("jsonl with texts of mixed types", _lines({"text": 7, "label": "pos"}), refused="text")
_add(
    "jsonl with records for labels",
    _lines(good=[{"text": r["text"], "label": {"a": 1}} for r in _GOOD]),
    refused="record",
)
_add("jsonl with half of a pair", _lines('{"text": "w3 \\ud800 w4", "label": "pos"}'), refused="a.jsonl cannot be read")
_add(
    "json with half of a pair",
    json.dumps([*_GOOD, {"text": "w3 \ud800", "label": "pos"}]),
    file="a.json",
    refused="row 24 .counted from 0. holds half of a surrogate pair",
)
_add("jsonl with NaN for labels", _lines('{"text": "w3", "label": NaN}'), refused="holds values of different types")
_add(
    "jsonl with one key twice",
    _lines('{"text": "w3", "text": "w4", "label": "pos"}'),
    refused="a.jsonl cannot be read|",
)
_add(
    "json of a hundred thousand brackets",
    "[" * 100_000 + "]" * 100_000,
    file="a.json",
    refused="a.json cannot be read as json",
    heavy=True,
)
_add("parquet that is empty", b"", file="a.parquet", refused="the file is empty")
_add("parquet of text", "text,label\nw3,pos\n", file="a.parquet", refused="a.parquet cannot be read as parquet")
_add("parquet that is a web page", "<html>no</html>", file="a.parquet", refused="this is a web page")


def _parquet(folder: Path, table: Any = None) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(_GOOD) if table is None else table, path)
    return path


def _given(path: Path) -> Given:
    return {"dataset": str(path), "test_split": None}


@CORPUS(refused="a.parquet cannot be read as parquet")
def _parquet_cut_off(folder: Path) -> Given:
    path = _parquet(folder)
    path.write_bytes(path.read_bytes()[:-100])
    return _given(path)


@CORPUS(refused="a.parquet cannot be read as parquet")
def _parquet_damaged_within(folder: Path) -> Given:
    path = _parquet(folder)
    content = bytearray(path.read_bytes())
    content[4:80] = bytes(255 - byte for byte in content[4:80])
    path.write_bytes(content)
    return _given(path)


@CORPUS(refused="1 of 25 rows are not UTF-8 in the column 'text'.*row 24: w3 caf")
def _parquet_with_texts_in_latin1(folder: Path) -> Given:
    texts = [row["text"].encode() for row in _GOOD] + [b"w3 caf\xe9"]
    column = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    return _given(_parquet(folder, pa.table({"text": column, "label": [label(n) for n in range(len(texts))]})))


@CORPUS(refused="not UTF-8 in the column 'label'.*row 24")
def _parquet_with_labels_in_latin1(folder: Path) -> Given:
    labels = [row["label"].encode() for row in _GOOD] + [b"\xe9t\xe9"]
    column = pa.Array.from_buffers(pa.string(), len(labels), pa.array(labels, pa.binary()).buffers())
    return _given(_parquet(folder, pa.table({"text": [text(n) for n in range(len(labels))], "label": column})))


@CORPUS(says=_TWO)
def _parquet_with_categories_of_pandas(folder: Path) -> Given:
    frame = pd.DataFrame(_GOOD).astype({"label": "category"})
    frame.to_parquet(folder / "a.parquet")
    return _given(folder / "a.parquet")


@CORPUS(refused="no rows")
def _parquet_of_no_rows(folder: Path) -> Given:
    return _given(_parquet(folder, pa.Table.from_pylist(_GOOD).slice(0, 0)))


@CORPUS(refused="a.parquet")
def _parquet_with_duplicate_columns(folder: Path) -> Given:
    values = pa.array([text(n) for n in range(ROWS)])
    return _given(_parquet(folder, pa.Table.from_arrays([values, values], names=["text", "text"])))


def _saved(folder: Path) -> Path:
    DatasetDict(train=Dataset.from_list(_GOOD)).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@CORPUS(refused="what save_to_disk wrote is damaged: ")
def _saved_folder_without_its_state(folder: Path) -> Given:
    saved = _saved(folder)
    (saved / "train" / "state.json").unlink()
    return _given(saved)


@CORPUS(refused="state.json: it says nothing of the data's files")
def _saved_folder_with_a_broken_state(folder: Path) -> Given:
    saved = _saved(folder)
    (saved / "train" / "state.json").write_text('{"_data_files": [')
    return _given(saved)


@CORPUS(refused="what save_to_disk wrote is damaged: ")
def _saved_folder_cut_off(folder: Path) -> Given:
    saved = _saved(folder)
    (arrow,) = (saved / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:200])
    return _given(saved)


@CORPUS(refused="train.csv")
def _folder_of_files_with_a_broken_one(folder: Path) -> Given:
    (folder / "train.csv").write_text("text,label\nw3,pos\nw3,pos,neg\n")
    (folder / "test.csv").write_text("text,label\nw3,pos\n")
    return _given(folder)
