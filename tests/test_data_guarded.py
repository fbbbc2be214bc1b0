"""Data of the Hub is in its repository, and no row names a file of this machine; what is refused and what is not."""

import gzip
import os

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import encoded, make_recipe, photo
from datasets import Dataset, Features, Image, Value
from faults.bad_hub import prepare

from hf_finetune.data import sizes
from hf_finetune.data.guarded import _check_place
from hf_finetune.data.hub_paths import refuse_paths
from hf_finetune.data.images import open_image
from hf_finetune.data.sizes import check_size
from hf_finetune.data.sources import open_source
from hf_finetune.errors import DataError

HERE = {"bytes": encoded(photo(0)), "path": "0.png"}


def images(*values):
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    return {"train": Dataset.from_dict({"image": list(values), "label": [0] * len(values)}, features=features)}


def data_of(**more):
    return make_recipe("them/data", "image-classification", **more).data


def test_a_row_of_the_hub_names_no_file_of_this_machine(tmp_path, monkeypatch):
    photo(1).save(tmp_path / "mine.png")
    refuse_paths("them/data", data_of(), images(HERE, HERE, {"bytes": HERE["bytes"], "path": "/etc/x.png"}))
    for path in (str(tmp_path / "mine.png"), "/etc/passwd", "mine.png"):
        with pytest.raises(DataError, match="of this machine"):
            refuse_paths("them/data", data_of(), images(HERE, {"bytes": None, "path": path}))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    refuse_paths("them/data", data_of(), images({"bytes": None, "path": str(tmp_path / "mine.png")}))
    with pytest.raises(DataError, match="of this machine"):
        refuse_paths("them/data", data_of(), images({"bytes": None, "path": f"{tmp_path}/../mine.png"}))


def test_a_pinned_commit_beside_a_newer_one_is_looked_at_too(tmp_path, monkeypatch):
    """Without the network the newer one is loaded first, and the rows of the pinned one take its place."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    photo(1).save(tmp_path / "mine.png")
    old = prepare("them/data", "a" * 40, images(HERE, {"bytes": None, "path": str(tmp_path / "mine.png")})["train"])
    os.utime(old, (1, 1))
    prepare("them/data", "b" * 40, images(HERE, HERE)["train"])
    assert len(open_source(data_of())["train"]) == 2
    with pytest.raises(DataError, match="of this machine"):
        open_source(data_of(revision="a" * 40))


def test_a_column_of_paths_is_refused_only_as_the_images():
    rows = {"train": Dataset.from_dict({"image": ["/etc/a.png", "b.png"], "label": [0, 1]})}
    with pytest.raises(DataError, match="holds paths of images"):
        refuse_paths("them/data", data_of(), rows)
    beside = images(HERE, HERE)["train"].add_column("file", ["a.png", "b.png"])
    refuse_paths("them/data", data_of(), {"train": beside})
    with pytest.raises(DataError, match="'file' of train"):
        refuse_paths("them/data", data_of(image="file"), {"train": beside})


@pytest.mark.parametrize(
    "place", ["/etc/passwd", "x.csv", "file:///etc/passwd", "http://169.254.169.254/x.csv", "zip://a.csv::/etc/x.zip"]
)
def test_the_hub_serves_its_own_files(place, tmp_path):
    with pytest.raises(DataError, match="outside of"):
        _check_place(place, None)


def test_places_that_are_a_data_sets_own(tmp_path, monkeypatch):
    _check_place("hf://datasets/them/data@abc/train.csv", None)
    _check_place("zip://a.csv::hf://datasets/them/data@abc/train.zip", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for place in ("data/a.csv", str(tmp_path / "data" / "a.csv"), f"gzip://a.csv::{tmp_path}/data/a.csv.gz"):
        _check_place(place, tmp_path / "data")
    for place in ("a.csv", "data/../a.csv", "hf://datasets/them/data/x.csv"):
        with pytest.raises(DataError):
            _check_place(place, tmp_path / "data")


def test_what_is_as_large_as_it_seems_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_USUAL", 100_000)
    words = " ".join(f"word{n * 7919 % 10_007}" for n in range(50_000))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(words.encode()))
    check_size(tmp_path / "a.csv.gz")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"\0" * 1_000_000))
    with pytest.raises(DataError, match="and becomes more than"):
        check_size(tmp_path / "b.csv.gz")
    (tmp_path / "torn.gz").write_bytes(gzip.compress(words.encode())[:1000])
    check_size(tmp_path / "torn.gz")  # its reader says that it is torn


def test_a_table_of_repeated_values_is_taken_while_it_is_small(tmp_path, monkeypatch):
    texts = [f"text {n % 50}" for n in range(20_000)]
    pq.write_table(pa.table({"text": texts, "label": [n % 2 for n in range(20_000)]}), tmp_path / "a.parquet")
    check_size(tmp_path / "a.parquet")
    looked = []
    monkeypatch.setattr(sizes, "_may_grow", lambda column: column.path_in_schema == "text")
    monkeypatch.setattr(sizes, "_becomes", lambda array: looked.append(array.type) or 1)
    check_size(tmp_path / "a.parquet")
    assert looked and all(pa.types.is_dictionary(kind) for kind in looked)


def test_postscript_is_no_image(tmp_path):
    """Pillow would start Ghostscript for it."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(program)
    for value in (program, str(tmp_path / "a.png"), {"bytes": program, "path": None}):
        with pytest.raises(OSError, match="cannot identify"):
            open_image(value)
