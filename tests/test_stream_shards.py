"""Shards that are cut off, of other columns, or made to break their readers: told in words, with the file's name."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import encoded, image_recipe, make_recipe, photo, private_cache  # noqa: F401
from huggingface_hub.errors import HfHubHTTPError
from stream_samples import as_jsonl, as_parquet, as_tar, pictures, put, sentences

from hf_finetune.data import load_data, shards
from hf_finetune.data.shards_parquet import ParquetRows
from hf_finetune.data.shards_tar import TarRows
from hf_finetune.errors import DataError, UserError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))


def cut_off(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def change(path, make):
    pq.write_table(make(pq.read_table(path)), path)


def torn_page(path):
    content = bytearray(path.read_bytes())
    content[200:900] = bytes(700)
    path.write_bytes(content)


def samples(path, field, content):
    with tarfile.open(path, "w") as archive:
        for number in range(10):
            put(archive, f"{number}.png", encoded(photo(number)))
            put(archive, f"{number}.{field}", content)


def with_hole(path):
    member = tarfile.TarInfo("0.txt")
    member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**30), "GNU.sparse.name": "0.txt"}
    member.size = 1
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"x"))


MIDDLE = {
    "tar cut off": (as_tar, lambda path: cut_off(path, 7000), "unexpected end of data"),
    "empty tar": (as_tar, lambda path: samples(path, "skip", b"") or tarfile.open(path, "w").close(), "no sample"),
    "tar of no samples' labels": (as_tar, lambda path: samples(path, "cls", b"cat"), "invalid literal"),
    "tar with a hole": (as_tar, with_hole, "a file with holes"),
    "parquet cut off": (as_parquet, lambda path: cut_off(path, -20), "cannot be read as parquet"),
    "parquet with a torn page": (as_parquet, torn_page, "cannot be read as parquet"),
    "parquet without a column": (as_parquet, lambda path: change(path, lambda t: t.drop(["label"])), "has the columns"),
    "parquet of other types": (
        as_parquet,
        lambda path: change(path, lambda t: t.set_column(1, "label", pa.array(["a"] * len(t)))),
        r"label \(string\); .* label \(int64\)",
    ),
    "jsonl cut off": (as_jsonl, lambda path: cut_off(path, -9), "a line is no JSON record"),
    "jsonl of brackets": (as_jsonl, lambda path: path.write_text('{"a": ' + "[" * 200_000), "no JSON record"),
    "packed jsonl": (as_jsonl, lambda path: path.write_bytes(b"\x1f\x8b" + bytes(600)), r"is packed \(gzip\)"),
    "jsonl of other types": (
        as_jsonl,
        lambda path: path.write_text('{"text": "a", "label": 1}\n' * 9),
        "of another type than in the first 200 rows",
    ),
}


def all_rows(recipe):
    task = load_data(recipe)
    return task, task.train.read(range(len(task.train)))


@pytest.mark.parametrize("case", MIDDLE)
def test_a_shard_that_is_no_good_is_named(tmp_path, case):
    """The one in the middle of three; what is not seen when rows are counted is when they are read."""
    write, spoil, words = MIDDLE[case]
    make = make_recipe if write is as_jsonl else image_recipe
    paths = write((sentences if write is as_jsonl else pictures)(30), tmp_path)
    spoil(Path(paths[1]))
    with pytest.raises(DataError, match=words) as told:
        all_rows(make(paths, streaming=True, validation=0.2, test_split=None))
    assert str(told.value).startswith(paths[1])


def test_deep_brackets_in_a_tar(tmp_path):
    samples(tmp_path / "a.tar", "json", b"[" * 100_000)
    with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar archive of samples"):
        TarRows([str(tmp_path / "a.tar")])


def test_shards_may_be_empty_and_have_their_columns_in_any_order(tmp_path):
    paths = [Path(path) for path in as_parquet(sentences(40), tmp_path, shards=4)]
    change(paths[1], lambda table: table.slice(0, 0))
    change(paths[2], lambda table: table.select(["label", "text"]))
    change(paths[3], lambda table: table.cast(pa.schema([("text", pa.large_string()), ("label", pa.string())])))
    _, rows = all_rows(make_recipe(str(tmp_path / "*.parquet"), streaming=True, validation=0.2, test_split=None))
    assert len(rows) == 24 and not any(row.fault for row in rows)
    assert {row.values["text"] for row in rows} <= set(sentences(40)["text"])


def test_a_row_without_a_label_is_told_with_its_file(tmp_path):
    paths = as_jsonl(sentences(30), tmp_path)
    Path(paths[1]).write_text('{"text": "x"}\n{"text": "y", "label": "a"}\n')
    recipe = make_recipe({"train": paths, "test": paths[1]}, streaming=True, validation=0.2)
    with pytest.raises(DataError, match=r"test row 0: the label is missing \(.*train-1\.jsonl\)"):
        load_data(recipe)


@pytest.mark.parametrize("write", [as_jsonl, as_parquet])
def test_a_split_that_lacks_the_label(tmp_path, write):
    splits = {
        "train": write(sentences(30), tmp_path),
        "test": write(sentences(9).remove_columns("label"), tmp_path, "t"),
    }
    with pytest.raises(DataError, match=r"data\.test_split=test: the split lacks the column 'label'"):
        load_data(make_recipe(splits, streaming=True, validation=0.2))


CARD = """---
configs:
- config_name: default
  data_files: train*
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': a, '1': b, '2': c}}}
---
"""


@pytest.mark.parametrize("write", [as_jsonl, as_parquet])
def test_classes_by_name_beside_a_readme_that_lists_them(tmp_path, write):
    write(sentences(30), tmp_path)
    (tmp_path / "README.md").write_text(CARD)
    task, rows = all_rows(make_recipe(str(tmp_path), streaming=True, validation=0.2, test_split=None))
    assert task.labels.names == ("a", "b", "c") and [row.label for row in rows] == [row.id % 3 for row in rows]


def test_columns_that_only_the_readme_has(tmp_path):
    as_parquet(sentences(30), tmp_path)
    (tmp_path / "README.md").write_text(CARD.replace("features:\n", "features:\n  - {name: more, dtype: int64}\n"))
    with pytest.raises(DataError, match="README says that there are more"):
        load_data(make_recipe(str(tmp_path), streaming=True, validation=0.2, test_split=None))


def test_a_line_without_an_end_is_not_read_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_MOST_CHUNK", 1000)
    monkeypatch.setattr("hf_finetune.data.shards_json._BLOCK", 100)
    (tmp_path / "a.jsonl").write_text('{"text": "' + "a" * 10_000)
    with pytest.raises(DataError, match=r"a line of .* cannot be read at once"):
        load_data(make_recipe(str(tmp_path / "a.jsonl"), streaming=True))


def test_a_row_group_that_repeats_a_long_text(tmp_path):
    """A megabyte says one text of a megabyte 5,000 times: 5 GB in memory."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5000, np.int32)), pa.array(["a" * 2**20]))
    table = pa.table({"text": texts, "label": ["a", "b"] * 2500})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)  # else it would be read as a dictionary
    assert (tmp_path / "a.parquet").stat().st_size < 2**21
    rows = ParquetRows([str(tmp_path / "a.parquet")])
    with pytest.raises(DataError, match=r"a\.parquet: a row group of .* GiB cannot be read at once"):
        rows.read(0, ["text"])
    assert rows.read(0, ["label"]).num_rows == 5000


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    counted = 0

    def read(self, size=-1):
        found = super().read(size)
        Counted.counted += len(found)
        return found


def test_labels_of_a_tar_are_read_without_its_images(tmp_path, monkeypatch):
    """20,000 rows from all over a split tell the labels."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(30):
            put(archive, f"{number}.png", bytes(50_000))
            put(archive, f"{number}.cls", b"%d" % (number % 3))
    rows = TarRows([str(path)])
    monkeypatch.setattr("hf_finetune.data.shards_tar.open_file", Counted)
    assert rows.read(0, ["cls"])["cls"].to_pylist() == [number % 3 for number in range(30)]
    assert Counted.counted < path.stat().st_size / 10
    assert len(rows.read(0, ["png"])["png"][7]["bytes"].as_py()) == 50_000


@pytest.mark.parametrize(("status", "kind"), [(None, UserError), (503, UserError), (403, DataError)])
def test_what_the_hub_says_is_told_without_its_words(status, kind):
    """A server may repeat the token that it refuses."""
    error = ConnectionError("secret")
    if status is not None:
        error = HfHubHTTPError("secret", response=SimpleNamespace(status_code=status, headers={}, request=None))
    words = f"^hf://datasets/a/b@c/d: .*{status or 'ConnectionError'}"
    with pytest.raises(kind, match=words) as told, shards.as_shard("hf://datasets/a/b@c/d", "parquet"):
        raise error
    assert "secret" not in str(told.value) and type(told.value) is kind  # offline: else one that says to come again
