"""Containers that become more than they are, and tables that lie about where their values lie."""

import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from data_samples import make_recipe
from datasets import Dataset, DatasetDict
from faults.hostile_archives import tar_with_a_hole

from hf_finetune.data import sizes
from hf_finetune.data.arrow_sizes import arrow_sizes
from hf_finetune.data.sizes import check_size
from hf_finetune.data.sources import open_source
from hf_finetune.errors import DataError

MIB = 2**20


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(sizes, "_USUAL", 100_000)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_with_holes_is_as_large_as_what_it_becomes(tmp_path, name):
    def write(content):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    write(tar_with_a_hole(50_000))
    check_size(tmp_path / name)
    with tarfile.open(tmp_path / name) as archive:
        assert len(archive.extractfile(archive.next()).read()) == 50_000
    write(tar_with_a_hole(10**9))
    with pytest.raises(DataError, match="and becomes more than 1,000,000,000 bytes in 1 files"):
        check_size(tmp_path / name)


def test_an_ordinary_tar_is_taken(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(20):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = 20_000
            archive.addfile(member, io.BytesIO(bytes(20_000)))
    check_size(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_whatever_arrow_unpacks_is_measured(tmp_path, kind):
    with pa.output_stream(str(tmp_path / "a.csv.x"), compression=kind) as file:
        file.write(bytes(20 * MIB))
    with pytest.raises(DataError, match="and becomes more than"):
        check_size(tmp_path / "a.csv.x")


def write_arrow(path, batch, opened=pa.ipc.new_stream, times=1, **options):
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as file, opened(file, batch.schema, options=options) as writer:
        for _ in range(times):
            writer.write_batch(batch)


@pytest.mark.parametrize("opened", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("legacy", [False, True])
def test_packed_tables_of_arrow_are_measured(tmp_path, opened, legacy):
    options = {"compression": "zstd", "use_legacy_format": legacy}
    write_arrow(
        tmp_path / "a.arrow", pa.record_batch([pa.array(np.zeros(2 * MIB, np.int8))], ["a"]), opened, 3, **options
    )
    assert list(arrow_sizes(tmp_path / "a.arrow")) == [(2 * MIB, 2 * MIB)] * 3
    with pytest.raises(DataError, match="and becomes more than"):
        check_size(tmp_path / "a.arrow")
    words = pa.array([f"word {n * 7919 % 10_007}" for n in range(20_000)])
    write_arrow(
        tmp_path / "b.arrow", pa.record_batch([words, words.dictionary_encode()], ["a", "b"]), opened, **options
    )
    check_size(tmp_path / "b.arrow")


def test_rows_of_nothing_are_counted(tmp_path):
    write_arrow(tmp_path / "a.arrow", pa.record_batch([pa.nulls(10**9)], ["a"]))
    with pytest.raises(DataError, match="1,000,000,000 rows"):
        check_size(tmp_path / "a.arrow")


def data_of(folder):
    return make_recipe(str(folder), "text-classification").data


def test_a_saved_data_set_is_measured(tmp_path):
    Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(str(tmp_path / "data"))
    (table,) = (tmp_path / "data").glob("*.arrow")
    write_arrow(table, pa.record_batch([pa.array(np.zeros(20 * MIB, np.int8))], ["a"]), compression="zstd")
    with pytest.raises(DataError, match="and becomes more than"):
        open_source(data_of(tmp_path / "data"))


def test_a_saved_data_set_whose_texts_lie_elsewhere_is_damaged(tmp_path):
    """pyarrow reads them wherever the offsets point: the process ends in a bus error."""
    Dataset.from_dict({"text": ["abcd", "efgh"], "label": [0, 1]}).save_to_disk(str(tmp_path / "data"))
    assert len(open_source(data_of(tmp_path / "data"))["train"]) == 2
    (table,) = (tmp_path / "data").glob("*.arrow")
    offsets = np.array([0, 4, 8], np.int32).tobytes()
    content = table.read_bytes()
    assert content.count(offsets) == 1
    table.write_bytes(content.replace(offsets, np.array([0, 4, 2_000_000_000], np.int32).tobytes()))
    with pytest.raises(DataError, match="what save_to_disk wrote is damaged"):
        open_source(data_of(tmp_path / "data"))


def test_splits_of_a_saved_data_set_lie_in_it(tmp_path):
    rows = Dataset.from_dict({"text": ["abcd", "efgh"], "label": [0, 1]})
    rows.save_to_disk(str(tmp_path / "mine"))
    DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "data"))
    (tmp_path / "data" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../mine"]}))
    with pytest.raises(DataError, match="no folder beside it"):
        open_source(data_of(tmp_path / "data"))
