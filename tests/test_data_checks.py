"""Broken rows are named or left out, copies are counted, and the inspection is done once."""

import io
import os

import datasets
import numpy as np
import pytest
from data_samples import (  # noqa: F401
    broken_folder,
    deep_grey,
    encoded,
    image_recipe,
    make_recipe,
    photo,
    private_cache,
    rotated_by_exif,
)
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow

from hf_finetune.data import checks, decode_image, load_data, passes
from hf_finetune.errors import DataError


def test_broken_images_are_named_before_training(tmp_path):
    folder, truncated, text = broken_folder(tmp_path / "data")
    with pytest.raises(DataError) as error:
        load_data(image_recipe(str(folder)))
    message = str(error.value)
    assert message.startswith("2 of 37 rows cannot be used (rows are counted from 0):")
    for path, reason in ((truncated, "truncated|Truncated"), (text, "it is not an image")):
        [line] = [line for line in message.splitlines() if str(path) in line]
        assert line.startswith("  train row ") and any(word in line for word in reason.split("|"))
    assert "data.on_error=skip" in message


def test_skip_leaves_broken_images_out_and_lists_them(tmp_path):
    folder, truncated, text = broken_folder(tmp_path / "data")
    task = load_data(image_recipe(str(folder), on_error="skip"))
    assert {row["path"] for row in task.skipped} == {str(truncated), str(text)}
    assert {row["split"] for row in task.skipped} == {"train"}
    assert len(task.train) + len(task.validation) == 27
    used = {row["image"]["path"] for split in (task.train, task.validation) for row in split}
    assert not used & {str(truncated), str(text)}
    assert {"cmyk.jpg", "deep.png", "turned.jpg"} <= {path.rsplit("/", 1)[-1] for path in used}
    for split in (task.train, task.validation, task.test):
        for row in split:
            assert decode_image(row["image"]).mode == "RGB"


@pytest.mark.real
def test_real_photos_with_broken_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", os.environ["HF_HOME"] + "/datasets")
    source = datasets.load_dataset("local/ants_bees")
    root = tmp_path / "photos"
    for split, rows in source.items():
        for n, row in enumerate(rows):
            place = root / split / rows.features["label"].int2str(row["label"])
            place.mkdir(parents=True, exist_ok=True)
            row["image"].convert("RGB").save(place / f"{n:03}.jpg", quality=95)
    ants, bees = root / "train" / "ants", root / "train" / "bees"
    whole = next(iter(sorted(ants.iterdir()))).read_bytes()
    (ants / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (bees / "notes.jpg").write_text("notes")
    picture = source["train"][0]["image"].convert("RGB")
    picture.convert("CMYK").save(ants / "cmyk.jpg")
    deep_grey().save(bees / "deep.png")
    (bees / "turned.jpg").write_bytes(rotated_by_exif(picture))
    recipe = image_recipe(str(root), test_split="validation")
    with pytest.raises(DataError, match="2 of 402 rows cannot be used") as error:
        load_data(recipe)
    assert "half.jpg" in str(error.value) and "notes.jpg" in str(error.value)
    task = load_data(image_recipe(str(root), test_split="validation", on_error="skip"))
    assert len(task.skipped) == 2 and len(task.train) + len(task.validation) == 247 and len(task.test) == 153


def texts(values, labels=None):
    return Dataset.from_dict({"text": values, "label": labels or ["a", "b"] * (len(values) // 2)})


def test_ten_rows_are_named_and_all_are_counted():
    values = [f"text {n}" for n in range(60)]
    values[5:30] = ["  "] * 25
    with pytest.raises(DataError) as error:
        load_data(make_recipe("memory", test_split=None), texts(values))
    lines = str(error.value).splitlines()
    assert lines[0] == "25 of 60 rows cannot be used (rows are counted from 0):"
    assert sum(line.endswith("the text is empty") for line in lines) == 10
    assert "  ... and 15 more" in lines


def test_broken_rows_are_listed_in_order_though_validation_is_held_out_of_train():
    values = ["" if n % 10 == 0 else f"text {n}" for n in range(80)]
    with pytest.raises(DataError) as error:
        load_data(make_recipe("memory", test_split=0.3, validation=0.3), texts(values))
    rows = [
        int(line.split()[2].rstrip(":")) for line in str(error.value).splitlines() if line.startswith("  train row")
    ]
    assert rows == list(range(0, 80, 10))


def test_every_kind_of_broken_text_row():
    features = Features(
        {"a": Value("string"), "b": Value("string"), "label": ClassLabel(names=["x", "y"]), "row": Value("int64")}
    )
    good = [(f"a{n}", f"b{n}", n % 2) for n in range(20)]
    bad = [(None, "b", 0), ("a", "", 1), ("\n\t", "b", 0), ("a", "b", -1), ("a", "b", None), ("", "b", None)]
    rows = good + bad
    source = Dataset.from_dict(
        {"a": [r[0] for r in rows], "b": [r[1] for r in rows], "label": [r[2] for r in rows], "row": [0] * len(rows)},
        features=features,
    )
    recipe = make_recipe("memory", text="a", text_pair="b", test_split=None, on_error="skip", validation=0.3)
    task = load_data(recipe, source)
    assert sorted((row["row"], row["reason"]) for row in task.skipped) == [
        (20, "the text is missing"),
        (21, "the text is empty"),
        (22, "the text is empty"),
        (23, "the label is missing"),
        (24, "the label is missing"),
        (25, "the text is empty; the label is missing"),
    ]
    assert sorted(task.train["id"][:] + task.validation["id"][:]) == list(range(20))
    assert task.train.column_names == ["id", "text", "text_pair", "label"]


def test_targets_that_are_not_numbers_are_broken_rows():
    source = texts([f"text {n}" for n in range(10)], [0.5, float("nan"), float("inf"), None, *map(float, range(6))])
    with pytest.raises(DataError, match=r"(?s)3 of 10.*row 1: the label is missing.*row 2: the label is inf.*row 3"):
        load_data(make_recipe("memory", test_split=None), source)


def test_only_rows_that_are_used_are_looked_at():
    values = [f"text {n}" for n in range(200)]
    values[0] = ""
    task = load_data(make_recipe("memory", test_split=None, max_train_samples=20, seed=1), texts(values))
    assert 0 not in task.train["id"][:] + task.validation["id"][:]


def test_nothing_left_is_an_error():
    data = DatasetDict(train=texts(["x", "y"] * 4), test=texts(["", ""]))
    with pytest.raises(DataError, match="No row of the test split can be used"):
        load_data(make_recipe("memory", on_error="skip"), data)


def test_copies_between_train_and_test_are_counted():
    train = [f"text {n}" for n in range(20)]
    data = DatasetDict(train=texts(train), test=texts([" text 3 ", "text 4\n", "text 100", "text 5 "]))
    task = load_data(make_recipe("memory"), data)
    assert len(task.warnings) == 1 and task.warnings[0].startswith("3 of 4 test rows are exact copies")
    clean = DatasetDict(train=texts(train), test=texts(["x", "y"]))
    assert not load_data(make_recipe("memory"), clean).warnings


def test_a_pair_is_a_copy_only_as_a_whole():
    def pairs(rows):
        return Dataset.from_dict(
            {"a": [r[0] for r in rows], "b": [r[1] for r in rows], "label": ["x", "y"] * (len(rows) // 2)}
        )

    data = DatasetDict(
        train=pairs([("p", "q"), ("r", "s"), ("t", "u"), ("v", "w")]), test=pairs([("p", "s"), ("t", "u")])
    )
    task = load_data(make_recipe("memory", text="a", text_pair="b"), data)
    assert task.warnings[0].startswith("1 of 2 test rows")


def test_copies_of_images_are_found_by_their_pixels():
    train = Dataset.from_dict(
        {"image": [{"bytes": encoded(photo(n)), "path": None} for n in range(8)], "label": [0, 1] * 4}
    )
    again = [encoded(photo(3), "BMP"), encoded(photo(100)), encoded(photo(3, (20, 60)))]
    test = Dataset.from_dict({"image": [{"bytes": value, "path": None} for value in again], "label": [0, 1, 0]})
    data = DatasetDict(train=train, test=test).cast_column("image", Image())
    assert load_data(image_recipe("memory"), data).warnings[0].startswith("1 of 3 test rows")


def test_a_class_without_training_rows_is_a_warning():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y", "never"])})
    source = Dataset.from_dict({"text": [f"t{n}" for n in range(10)], "label": [0, 1] * 5}, features=features)
    assert load_data(make_recipe("memory", test_split=None), source).warnings == [
        "1 of 3 classes have no training row: never."
    ]


def test_colour_decides_what_is_natural():
    grey = [photo(n).convert("L") for n in range(12)]
    tinted = [np.asarray(image.convert("RGB")) + np.array([3, 0, 0], np.uint8) for image in grey]
    for images, natural in ((grey, False), ([photo(n) for n in range(12)], True), (tinted, False)):
        pictures = Dataset.from_dict(
            {"image": images, "label": [0, 1] * 6}, features=Features({"image": Image(), "label": Value("int64")})
        )
        assert load_data(image_recipe("memory", test_split=None), pictures).natural_images is natural


def test_rows_are_looked_at_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    folder, truncated, text = broken_folder(tmp_path / "data")
    recipe = image_recipe(str(folder), on_error="skip")
    first = load_data(recipe)
    looked_at = []
    original = checks._inspect_image
    monkeypatch.setattr(checks, "_inspect_image", lambda value: looked_at.append(value["path"]) or original(value))
    assert load_data(recipe).fingerprint == first.fingerprint
    assert not looked_at
    photo(999).save(text)
    mended = load_data(recipe)
    assert str(text) in looked_at
    assert [row["path"] for row in mended.skipped] == [str(truncated)]
    assert mended.fingerprint != first.fingerprint


def test_several_processes_find_the_same(monkeypatch):
    values = [f"text {n}" for n in range(40)]
    values[7] = ""
    source = texts(values)
    alone = checks.inspect(source)
    monkeypatch.setitem(passes._MANY, "text", 1)
    monkeypatch.setattr(passes.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(checks, "_VERSION", "two processes")
    assert checks.inspect(source) == alone
    assert alone.reasons[7] == "the text is empty"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_recipe_gives_the_same_data_and_another_seed_other_rows(seed):
    source = texts([f"text {n}" for n in range(100)])
    first, again = (load_data(make_recipe("memory", test_split=0.2, seed=seed), source) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert first.train["id"][:] == again.train["id"][:]
    other = load_data(make_recipe("memory", test_split=0.2, seed=seed + 10), source)
    assert other.fingerprint != first.fingerprint and other.test["id"][:] != first.test["id"][:]


def test_data_sorted_by_class_is_split_as_evenly_as_shuffled():
    source = texts([f"text {n}" for n in range(300)], ["a"] * 200 + ["b"] * 100)
    task = load_data(make_recipe("memory", test_split=0.3, max_train_samples=90, max_eval_samples=30), source)
    for split, sizes in ((task.train, (54, 27)), (task.validation, (6, 3)), (task.test, (20, 10))):
        labels = split["label"][:]
        assert (labels.count(0), labels.count(1)) == sizes
    rows = [set(split["id"][:]) for split in (task.train, task.validation, task.test)]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


def test_limits_apply_to_named_splits():
    data = DatasetDict({name: texts([f"{name} {n}" for n in range(100)]) for name in ("train", "validation", "test")})
    task = load_data(make_recipe("memory", validation="validation", max_train_samples=30, max_eval_samples=10), data)
    assert (len(task.train), len(task.validation), len(task.test)) == (30, 10, 10)


def test_the_test_share_does_not_depend_on_the_training_limit():
    source = texts([f"text {n}" for n in range(200)])
    tests = [
        load_data(make_recipe("memory", test_split=0.2, max_train_samples=n), source).test["id"][:] for n in (20, 100)
    ]
    assert tests[0] == tests[1]


@pytest.mark.parametrize(
    ("labels", "problem_type", "dtype"),
    [
        ([["a"], ["b", "c"], [], ["a", "c"]] * 5, "multi_label_classification", [1.0, 0.0, 0.0]),
        ([[0.5, 1.5], [2.5, 3.5]] * 10, "regression", [0.5, 1.5]),
        ([0.25, 0.75] * 10, "regression", 0.25),
    ],
)
def test_multi_label_and_regression_splits(labels, problem_type, dtype):
    task = load_data(make_recipe("memory", test_split=0.2), texts([f"text {n}" for n in range(20)], labels))
    assert task.labels.problem_type == problem_type
    targets = {row["id"]: row["label"] for split in (task.train, task.validation, task.test) for row in split}
    assert targets[0] == dtype and len(targets) == 20


def shown(pictures, stored=None):
    content = [{"bytes": stored(picture) if stored else encoded(picture), "path": None} for picture in pictures]
    rows = Dataset.from_dict({"image": content, "label": [n % 2 for n in range(len(content))]})
    return rows.cast_column("image", Image(decode=False))


def in_alpha(n, alpha):
    image = photo(n).convert("RGBA")
    image.putalpha(alpha)
    return image


def test_what_an_alpha_channel_alone_changes_is_a_copy_for_three_channels_and_none_for_four():
    rows = shown([photo(1), in_alpha(1, 255), in_alpha(1, 90), in_alpha(1, 91), in_alpha(2, 90)])
    looked = checks.inspect(rows)
    assert len(set(looked.digests)) == 2 and looked.digests[0] == looked.digests[3]
    assert len(set(looked.contents)) == 4 and looked.contents[0] == looked.contents[1]
    four = checks.inspect(rows, 4)
    assert four.digests == four.contents == looked.contents


def test_a_shape_in_the_alpha_channel_is_plain_for_three_channels_alone():
    shape = photo(1).convert("RGBA")
    shape.paste((0, 0, 0), (0, 0, *shape.size))
    shape.putalpha(photo(1).convert("L"))
    assert checks.inspect(shown([shape])).plain == [True]
    assert checks.inspect(shown([shape]), 4).plain == [False]


def test_images_are_plain_for_four_channels_where_all_four_are():
    colours = [(0, 0, 0, 0), (9, 8, 7, 90), (9, 8, 7, 255)]
    rows = shown([*(Pillow.new("RGBA", (8, 8), colour) for colour in colours), in_alpha(1, 0), in_alpha(1, 255)])
    four = checks.inspect(rows, 4)
    assert four.plain == checks.inspect(rows).plain == [True, True, True, False, False]
    assert four.masked == [True, True, False, True, False] and not any(checks.inspect(rows).masked)
    assert four.select([3, 4]).masked == [True, False]


def test_the_fingerprint_changes_with_an_alpha_channel():
    """Of a checkpoint that takes four channels by itself the recipe does not tell."""
    prints = [
        load_data(image_recipe("m", test_split=None), shown([in_alpha(n, alpha) for n in range(12)])).fingerprint
        for alpha in (90, 91)
    ]
    assert prints[0] != prints[1]


def test_the_same_numbers_of_another_type_are_another_image():
    def stored(array):
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    mask = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
    looked = checks.inspect(shown([mask, mask.astype(bool), mask], stored))
    assert looked.digests[0] == looked.digests[2] != looked.digests[1]
