"""Rows that stay in their shards: the same rows as if all had been read, whatever the shards; what is refused."""

from __future__ import annotations

import pickle
import tarfile

import numpy as np
import pytest
from data_samples import encoded, image_recipe, make_recipe, photo, private_cache  # noqa: F401
from datasets import Image
from stream_samples import NAMES, Made, as_jsonl, as_parquet, as_tar, made, pictures, put, sentences
from transformers import ViTImageProcessor

from hf_finetune.data import load_data
from hf_finetune.data.columns import Columns
from hf_finetune.data.image_samples import collate_images, image_samples
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.shards_tar import TarRows
from hf_finetune.data.stream_choice import choose
from hf_finetune.data.streamed import StreamedRows
from hf_finetune.data.streamed_samples import StreamedImages
from hf_finetune.errors import DataError, UserError
from hf_finetune.recipes.schema import Data, Recipe

SPACE = LabelSpace("single_label_classification", tuple(NAMES))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))


def streamed(source, **options):
    return StreamedRows(source, "train", Columns(image="image", label="label"), SPACE, **options)


def recipe_of(tmp_path, kind, rows=30):
    """A recipe on shards of that kind, of rows that `Made` has too."""
    if kind == "jsonl":
        splits = {"train": as_jsonl(sentences(rows), tmp_path), "test": as_jsonl(sentences(9, 500), tmp_path, "test")}
        return make_recipe(splits, streaming=True, validation=0.2)
    write = as_parquet if kind == "parquet" else as_tar
    splits = {"train": write(pictures(rows), tmp_path), "test": write(pictures(9, 500), tmp_path, "test")}
    return image_recipe(splits, streaming=True, validation=0.2)


@pytest.mark.parametrize("kind", ["parquet", "tar", pytest.param("jsonl", marks=pytest.mark.slow)])
def test_every_row_trains_or_is_held_out_once(tmp_path, kind):
    task = load_data(recipe_of(tmp_path, kind))
    rows = task.train.read(range(len(task.train)))
    assert sorted([row.id for row in rows] + task.validation["id"][:]) == list(range(30))
    assert len(task.validation) == 6 and len(task.test) == 9
    assert [row.label for row in rows] == [row.id % 3 for row in rows]
    assert task.train.ids(range(len(task.train))).tolist() == [row.id for row in rows]
    if kind == "jsonl":
        assert [row.values["text"] for row in rows] == [sentences(30)[row.id]["text"] for row in rows]
    else:
        assert [row.values["image"]["bytes"] for row in rows] == [encoded(photo(row.id, (12, 9))) for row in rows]


@pytest.mark.slow
def test_the_same_start_finds_the_same_rows_and_a_change_of_a_file_is_seen(tmp_path):
    recipe = recipe_of(tmp_path, "jsonl")
    first, second = load_data(recipe), load_data(recipe)
    assert first.fingerprint == second.fingerprint
    assert first.validation["id"][:] == second.validation["id"][:]
    path = tmp_path / "train-0.jsonl"
    path.write_text(path.read_text() + '\n{"text": "w3 w3", "label": "a"}')
    assert load_data(recipe).fingerprint != first.fingerprint


def test_samples_are_those_of_rows_in_memory():
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    split = pictures(10)
    in_memory = split.cast_column("image", Image(decode=False))
    expected = collate_images(image_samples(in_memory, processor).__getitems__([7, 0, 3]))
    found = collate_images(StreamedImages(streamed(Made(split, [4, 4, 2])), processor, None).__getitems__([7, 0, 3]))
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_chunk_is_read_once_and_let_go_when_its_rows_have_come():
    rows = streamed(source := Made(pictures(12), [4, 4, 4]))
    for number in (0, 4, 1, 5, 2, 6, 3, 7, 8):
        rows.read([number])
    assert source.reads == {0: 1, 1: 1, 2: 1}
    assert list(rows._tables) == [2]
    assert not pickle.loads(pickle.dumps(rows))._tables  # a loader's worker begins with none


def test_few_training_rows_come_from_all_over_the_split():
    """Shards in the order of their classes: whole chunks until there are enough rows were two of one class."""
    sources = {"train": Made(sentences(900).select(sorted(range(900), key=lambda row: row % 3)), [30] * 30)}
    recipe = make_recipe("memory:", streaming=True, validation=0.1, test_split=None, max_train_samples=60)
    task = load_data(recipe, sources)
    rows = task.train.read(range(len(task.train)))
    assert len(rows) == 60 == len({row.id for row in rows})
    assert not {row.id for row in rows} & set(task.validation["id"][:])
    assert all(15 <= [row.label for row in rows].count(label) <= 25 for label in range(3))


@pytest.mark.parametrize("limit", [1, 29, 500, 809])
def test_a_limit_is_met_whatever_is_held_out(limit):
    data = Data(dataset="x", validation=0.1, test_split=None, max_train_samples=limit)
    chosen = choose(Made(sentences(900), [30] * 30), data, 0, 9999)
    rows = [(chunk, row) for chunk in chosen.train.chunks.tolist() for row in range(30)]
    rows = [(c, r) for c, r in rows if r not in chosen.train.left_out.get(c, ())]
    assert len(rows) == limit
    assert not {(c, r) for c, found in chosen.held["validation"].items() for r in found.tolist()} & set(rows)


def test_few_of_large_chunks_are_held():
    """Each reader of a chunk that two share held its part, however large, until 72 others were read."""
    (source := Made(sentences(80), [2] * 40)).weight = 2.0**27
    columns = Columns(text="text", label="label")
    rows = StreamedRows(source, "train", columns, SPACE)
    for number in range(0, 80, 2):
        rows.read([number])
    assert len(rows._tables) == 16


def test_files_that_train_and_score_are_told(tmp_path):
    paths = as_jsonl(sentences(30), tmp_path)
    recipe = make_recipe({"train": paths, "test": paths[1:]}, streaming=True, validation=0.2)
    assert any("2 files of the test split train too" in line for line in load_data(recipe).warnings)


def test_what_cannot_be_used_stops_with_row_and_reason_or_is_left_out_of_its_batch():
    split = pictures(6).to_dict()
    split["image"][2] = {"bytes": b"<html>", "path": None}
    split["label"][4] = None
    broken = Made(type(pictures(1)).from_dict(split, features=pictures(1).features), [6])
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    with pytest.raises(DataError, match=r"row 2 of train \(counted from 0\) cannot be used: .* it is a web page"):
        StreamedImages(streamed(broken), processor, None).__getitems__([1, 2])
    with pytest.raises(DataError, match=r"row 4 of train .* the label is missing"):
        StreamedImages(streamed(broken), processor, None).__getitems__([4])
    passing = StreamedImages(streamed(broken, on_error="skip"), processor, None)
    assert [int(sample["labels"]) for sample in passing.__getitems__(range(6))] == [0, 1, 0, 2]
    with pytest.raises(DataError, match="No row of a batch"):
        passing.__getitems__([2, 4])


def test_a_label_that_the_head_of_the_stream_has_not_is_told(tmp_path):
    rows = StreamedRows(
        Made(sentences(4), [4]),
        "train",
        Columns(text="text", label="label"),
        LabelSpace(SPACE.problem_type, ("a", "b")),
    )
    with pytest.raises(DataError, match="row 2 of train has the label 'c', which is not among the 2"):
        rows.read([0, 2])


def test_a_row_of_the_hub_names_no_file_of_this_machine():
    source = Made(pictures(4), [4])
    source.strange = True
    rows = streamed(source)
    assert len(rows.read([0, 1])) == 2
    with pytest.raises(DataError, match="row 3 of train names the file /etc/passwd of this machine"):
        rows._image({"bytes": None, "path": "/etc/passwd"}, 0, 3)


def test_a_record_beside_an_image_gives_columns_and_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(4):
            put(archive, f"{number}.jpg", encoded(photo(number), "JPEG"))
            put(archive, f"{number}.json", b'{"label": %d, "by": "me"}' % (number % 2))
            put(archive, f"{number}.pth", pickle.dumps(Bomb()))
            put(archive, f"{number}.txt.gz", b"no gzip")
    rows = TarRows([str(tmp_path / "a.tar")])
    assert set(rows.features) == {"jpg", "json.label", "json.by"}
    assert rows.read(0, ["json.label"])["json.label"].to_pylist() == [0, 1, 0, 1]
    recipe = image_recipe(str(tmp_path / "a.tar"), streaming=True, label="json.label", test_split=None, validation=0.3)
    assert load_data(recipe).labels.names == ("0", "1")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'[{"text": "x"}]', "one JSON list"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{"text"\n', "a line is no JSON record"),
        ("a.parquet", b"PK\x03\x04" + bytes(600), "a zip archive"),
        ("a.tar", b"\x1f\x8b" + bytes(600), "cannot be read as a tar archive of samples"),
        ("a.csv", b"text,label\nx,1\n", "reads parquet, JSON lines and tar shards"),
    ],
)
def test_files_that_cannot_be_streamed_are_told(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(make_recipe(str(tmp_path / name), streaming=True))


def test_without_the_network_a_data_set_of_the_hub_is_told():
    with pytest.raises(UserError, match=r"data\.streaming=false"):
        load_data(make_recipe("nobody/nothing", streaming=True))


def test_limits_hold(tmp_path):
    sources = made(pictures, {"train": 40, "validation": 30})
    limited = image_recipe("memory:", streaming=True, validation="validation", test_split=0.2, max_train_samples=10)
    task = load_data(limited.with_overrides("data.max_eval_samples=5"), sources)
    assert (len(task.train), len(task.validation), len(task.test)) == (10, 5, 5)
    trained = [row.id for row in task.train.read(range(10))]
    assert len(set(trained)) == 10 and not set(trained) & set(task.test["id"][:])


def test_seeds_of_one_recipe_score_on_the_same_rows():
    """`seeds: 5` and compare fix data.seed; the order of training is the seed's own."""
    sources = made(sentences, {"train": 60})
    options = {"streaming": True, "validation": 0.2, "test_split": 0.2, "max_train_samples": 20}

    def rows(seed, of_data):
        recipe = make_recipe("memory:", seed=seed, **options).with_overrides(f"data.seed={of_data}")
        return load_data(recipe, sources)

    assert rows(0, 7).fingerprint == rows(1, 7).fingerprint
    assert rows(0, 7).validation["id"][:] != rows(0, 8).validation["id"][:]


def test_a_test_that_is_not_to_be_read_is_not():
    """As in a search; a share of train stays held out all the same."""
    whole = made(sentences, {"train": 40, "test": 8})
    for split in ("test", 0.2):
        recipe = make_recipe("memory:", streaming=True, validation=0.2, test_split=split)
        with_test = load_data(recipe, whole)
        whole["test"].reads.clear()
        without = load_data(recipe.with_overrides("evaluation.test=false"), whole)
        assert without.test is None and not whole["test"].reads
        assert (
            without.train.ids(range(len(without.train))).tolist()
            == with_test.train.ids(range(len(with_test.train))).tolist()
        )


def test_copies_among_the_splits_that_score_are_told():
    split = sentences(12)
    sources = {"train": Made(sentences(12, 500), [12]), "validation": Made(split, [12]), "test": Made(split, [12])}
    recipe = make_recipe("memory:", streaming=True, validation="validation")
    assert any(
        "12 of 12 test rows are exact copies of validation rows" in line for line in load_data(recipe, sources).warnings
    )


def test_groups_cannot_be_held_out_of_a_stream():
    with pytest.raises(ValueError, match=r"data\.group: which rows are of one group"):
        make_recipe("a/b", streaming=True, group="text", test_split="test")
    recipe = make_recipe("a/b", streaming=True, group="text", validation="validation", test_split="auto")
    with pytest.raises(DataError, match=r"data\.group=text: which rows are of one group"):
        load_data(recipe, made(sentences, {"train": 40, "validation": 8}))


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"data": {"clean": {}}}, "data.clean"),
        ({"data": {"fold": (1, 5)}}, "data.fold"),
        ({"loss": {"sampling": "balanced"}}, "loss.sampling"),
        ({"loss": {"class_weights": "balanced"}}, "loss.class_weights"),
        ({"loss": {"logit_adjustment": 1.0}}, "loss.logit_adjustment"),
        ({"cache": {"prefix": "on"}}, "cache.prefix"),
        ({"strategy": {"kind": "features"}}, "strategy.kind"),
        ({"strategy": {"kind": "head", "solver": "lbfgs"}}, "strategy.solver"),
        ({"training": {"train_sampling_strategy": "sequential"}}, "training.train_sampling_strategy"),
        ({"distill": {"teacher": "a/b"}}, "distill"),
    ],
)
def test_what_needs_all_rows_beforehand_is_a_fault(values, path):
    from hf_finetune.recipes.pairs_stream import faults_of_stream

    data = {"dataset": "a/b", "streaming": True, **values.pop("data", {})}
    plain = {
        "task": "image-classification",
        "model": {"checkpoint": "c"},
        "data": {**data, "streaming": False},
        **values,
    }
    recipe = Recipe.model_validate(plain)
    assert not list(faults_of_stream(recipe))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"streaming": True})})
    assert path in [found for found, _ in faults_of_stream(recipe)]


def test_an_archive_is_looked_through_once(tmp_path, monkeypatch):
    [path] = as_tar(pictures(6), tmp_path, shards=1)
    first = TarRows([path])
    monkeypatch.setattr(tarfile, "open", lambda *args, **kwargs: pytest.fail("looked through again"))
    from hf_finetune.data.shards import kept_index

    assert [row[2] for row in kept_index(path, TarRows.cut)] == first.sizes.tolist() == [6]
