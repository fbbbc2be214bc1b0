"""Data of the Hub is in its repository, and no row names a file of this machine; what is refused and what is not."""

import gzip
import json
import os
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import encoded, make_recipe, photo
from datasets import Dataset, Features, Image, Value
from faults.bad_hub import prepare
from faults.listening import listening

from hf_finetune.data import sizes
from hf_finetune.data.hub_paths import refuse_paths
from hf_finetune.data.images import open_image
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.load import load_data
from hf_finetune.data.places import check_place
from hf_finetune.data.scored_rows import load_test
from hf_finetune.data.sizes import check_size
from hf_finetune.data.sources import open_source
from hf_finetune.data.stream_sources import open_stream
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
    with pytest.raises(DataError, match="'file' holds paths"):
        refuse_paths("them/data", data_of(image="file"), {"train": beside})


def paths_of_hub(folder):
    """A data set of the Hub whose first row hides that the others name a picture of this machine."""
    photo(1).save(folder / "mine.png")
    rows = {"photo": ["-"] + [str(folder / "mine.png")] * 23, "label": [0, 1] * 12}
    prepare("them/data", "a" * 40, Dataset.from_dict(rows))


def test_a_text_is_no_image_of_the_hub_whatever_its_first_rows_say(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    paths_of_hub(tmp_path)
    with pytest.raises(DataError, match="'photo' holds paths of images"):
        open_source(data_of(image="photo"))


def test_a_text_is_no_image_of_the_hub_whoever_names_the_column(tmp_path, monkeypatch):
    """A model's own recipe names the columns of what it is scored on."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    paths_of_hub(tmp_path)
    recipe = make_recipe("them/data", "image-classification", test_split="train", on_error="skip")
    labels = LabelSpace("single_label_classification", ("0", "1"))
    with pytest.raises(DataError, match="'photo' holds paths of images"):
        load_test(recipe, labels, trained_by=data_of(image="photo"))


def test_paths_of_a_persons_own_data_are_taken(tmp_path):
    paths = [str(tmp_path / f"{n}.png") for n in range(12)]
    for n, path in enumerate(paths):
        photo(n).save(path)
    rows = Dataset.from_dict({"photo": ["-", *paths], "label": [0, 1, *[0] * 6, *[1] * 5]})
    recipe = make_recipe("memory", "image-classification", image="photo", on_error="skip", test_split=None)
    assert len(load_data(recipe, rows).skipped) == 1


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "x.csv",
        "file:///etc/passwd",
        "http://169.254.169.254/x.csv",
        "zip://a.csv::/etc/x.zip",
        "reference://a.txt::hf://datasets/them/data@abc/ref.txt",  # does as ref.txt says
        "/etc/passwd::hf://datasets/them/data@abc/a.csv",  # hops behind a path are ignored
        "simplecache::http://127.0.0.1/x.csv::hf://datasets/them/data@abc/a.csv",
        "zip://a.csv::zip://a.zip::hf://datasets/them/data@abc/a.zip",  # nobody measures the inner one
        "hf://datasets/victim/private@main/salaries.csv",
        "hf://datasets/them/database@main/x.csv",
        "hf://buckets/them/data/x.csv",
        "hf://datasets/them/data@abc/../../../victim/private/resolve/main/x.csv",
        "https://huggingface.co/datasets/victim/private/resolve/main/x.csv",
    ],
)
def test_the_hub_serves_its_own_files(place):
    with pytest.raises(DataError, match="outside of"):
        check_place(place, "them/data")


def test_places_that_are_a_data_sets_own(tmp_path, monkeypatch):
    for place in (
        "hf://datasets/them/data@abc/train.csv",
        "hf://datasets/Them/data/sub/*.csv",
        "https://huggingface.co/datasets/them/data/resolve/main/a..b.csv",
        "hf://datasets/them/data@abc/train.tar.gz",
    ):
        assert check_place(place, "them/data") is None
    packed = "hf://datasets/them/data@abc/train.zip"
    assert check_place(f"zip://sub/*.csv::{packed}", "them/data") == packed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    for place in ("data/a.csv", str(tmp_path / "data" / "a.csv"), f"gzip://a.csv::{tmp_path}/data/a.csv.gz"):
        check_place(place, tmp_path / "data")
        check_place(place, tmp_path / "link")
    for place in ("a.csv", "data/../a.csv", "hf://datasets/them/data/x.csv", "~/data/a.csv"):
        with pytest.raises(DataError):
            check_place(place, tmp_path / "data")
    for place in ("file:/etc/passwd", "zip://a.csv::~/a.zip", "zip://a.csv::"):
        with pytest.raises(DataError):
            check_place(place, tmp_path)


def rows_of(folder, streaming):
    """A folder as it is opened, or as it is streamed."""
    data = make_recipe(str(folder), "text-classification", streaming=streaming).data
    return open_stream(data) if streaming else open_source(data)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_that_says_where_to_read_is_not_followed(tmp_path, monkeypatch, streaming):
    """fsspec's file system `reference` opens what the file names."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # `datasets` calls every address remote
    (tmp_path / "secret.txt").write_text("a secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ref.txt").write_text(json.dumps({"train.txt": [f"file://{tmp_path}/secret.txt"]}))
    place = f"reference://train.txt::{tmp_path}/data/ref.txt"
    (tmp_path / "data" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n")
    with pytest.raises(DataError, match="outside of"):
        rows_of(tmp_path / "data", streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_address_of_a_card_is_not_asked(tmp_path, streaming):
    """Not for what it holds, and not for whether it is there: an inner service may act on being asked."""
    (tmp_path / "data").mkdir()
    with listening(lambda: None) as (place, asked):
        for one in (f"{place}/a.csv", f"zip://*.csv::{place}/a.zip"):
            card = f"configs:\n- config_name: default\n  data_files: {one}\n"
            (tmp_path / "data" / "README.md").write_text(f"---\n{card}---\n")
            with pytest.raises(DataError, match="outside of"):
                rows_of(tmp_path / "data", streaming)
    assert asked == []


def test_a_file_of_an_archive_that_the_card_names(tmp_path, monkeypatch):
    """It is as good as one beside it; the archive is measured before anything of it is fetched."""
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", "text,label\n" + "good,1\nbad,0\n" * 20_000)
    card = f"configs:\n- config_name: default\n  data_files: zip://train.csv::{tmp_path}/data/all.zip\n"
    (tmp_path / "data" / "README.md").write_text(f"---\n{card}---\n")
    for name, value in (("HF_DATASETS_CACHE", "cache"), ("DOWNLOADED_DATASETS_PATH", "downloads")):
        monkeypatch.setattr(datasets.config, name, tmp_path / value)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    data = make_recipe(str(tmp_path / "data"), "text-classification").data
    with monkeypatch.context() as narrow:
        narrow.setattr(sizes, "_USUAL", 1000)
        with pytest.raises(DataError, match=r"all\.zip .* and becomes"):
            open_source(data)
    assert not (tmp_path / "downloads").exists()
    assert len(open_source(data)["train"]) == 40_000


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
    monkeypatch.setattr(sizes, "may_grow", lambda column: column.path_in_schema == "text")
    monkeypatch.setattr(sizes, "becomes", lambda array: looked.append(array.type) or 1)
    check_size(tmp_path / "a.parquet")
    assert looked and all(pa.types.is_dictionary(kind) for kind in looked)


def test_postscript_is_no_image(tmp_path):
    """Pillow would start Ghostscript for it."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(program)
    for value in (program, str(tmp_path / "a.png"), {"bytes": program, "path": None}):
        with pytest.raises(OSError, match="cannot identify"):
            open_image(value)
