"""data.clean: what is dropped from train, what never is, and the account of it."""

import json

import datasets
import numpy as np
import pytest
from data_samples import encoded, image_recipe, make_recipe, photo, private_cache  # noqa: F401
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as Pillow

from hf_finetune.data import load_data
from hf_finetune.data.checks import inspect
from hf_finetune.data.cleaning_copies import Copy, exact_copies, near_copies
from hf_finetune.data.cleaning_hashes import look_at_images, perceptual_hash
from hf_finetune.data.cleaning_neighbours import differing_bits, near_pairs
from hf_finetune.errors import DataError, RecipeError
from hf_finetune.recipes import load_recipe

TEXTS = [f"the {n}th sentence" for n in range(40)]


def texts(values, labels=None):
    labels = [("neg", "pos")[n % 2] for n in range(len(values))] if labels is None else labels
    return Dataset.from_dict({"text": values, "label": labels})


def images(pictures, labels=None, **columns):
    labels = [n % 2 for n in range(len(pictures))] if labels is None else labels
    content = [{"bytes": p if isinstance(p, bytes) else encoded(p), "path": None} for p in pictures]
    features = Features({"image": Image(), "label": ClassLabel(names=["ants", "bees"])})
    return Dataset.from_dict({"image": content, "label": labels, **columns}, features=features)


def clean_texts(source, clean, **data):
    data = {"validation": 0.1, "test_split": None, **data}
    return load_data(make_recipe("memory", clean=clean, **data), source)


def contents(rows):
    return set(inspect(rows).digests)


# --- rules -----------------------------------------------------------------------------------------------------------


def test_copies_are_dropped_and_the_first_stays():
    task = clean_texts(texts([*TEXTS, TEXTS[3], f"  {TEXTS[5]} "]), {})
    assert [(row["row"], row["kind"], row["reason"]) for row in task.cleaning.dropped] == [
        (40, "duplicate", "exact copy of train row 3, which has another label (pos, not neg)"),
        (41, "duplicate", "exact copy of train row 5"),
    ]
    assert sorted([*task.train["id"], *task.validation["id"]]) == list(range(40))
    words = task.cleaning.in_words()
    assert "dropped 2 exact copies of 42 training rows" in words and "another label than the row that stays: 1" in words


@pytest.mark.parametrize("seed", range(5))
def test_a_validation_share_holds_no_copy_of_a_training_row(seed):
    doubled = texts(TEXTS * 2)
    dirty = load_data(make_recipe("memory", seed=seed, validation=0.3, test_split=None), doubled)
    clean = load_data(make_recipe("memory", seed=seed, validation=0.3, test_split=None, clean={}), doubled)
    assert contents(dirty.train) & contents(dirty.validation)
    assert not contents(clean.train) & contents(clean.validation)
    assert len(clean.train) + len(clean.validation) == 40


def test_a_validation_split_stays_whole_and_train_loses_its_copies():
    source = DatasetDict(train=texts([*TEXTS, "seen"]), dev=texts(["seen", "seen", "unseen", "new"]))
    task = clean_texts(source, {}, validation="dev")
    assert len(task.validation) == 4 and task.train["id"][:] == list(range(40))
    assert task.cleaning.dropped[0]["reason"] == "exact copy of dev row 0"


def test_the_test_split_is_never_touched():
    test = texts([TEXTS[0], TEXTS[0], TEXTS[1], "other"])
    source = DatasetDict(train=texts([*TEXTS, TEXTS[0]]), test=test)
    task = clean_texts(source, {"max_per_class": 5}, test_split="test")
    assert task.test["id"][:] == [0, 1, 2, 3]
    assert {row["split"] for row in task.cleaning.dropped} == {"train"}
    plain = clean_texts(texts(TEXTS), None, test_split=0.25)
    shared = clean_texts(texts(TEXTS), {"max_per_class": 3}, test_split=0.25)
    assert shared.test["id"][:] == plain.test["id"][:]


def test_null_does_nothing():
    source = texts([*TEXTS, TEXTS[0]])
    task, plain = clean_texts(source, None), clean_texts(source, None)
    assert task.cleaning is None and task.fingerprint == plain.fingerprint
    assert len(task.train) + len(task.validation) == 41
    nothing = clean_texts(texts(TEXTS), {})
    assert nothing.cleaning.dropped == [] and "nothing to drop in 40" in nothing.cleaning.in_words()
    assert nothing.fingerprint == clean_texts(texts(TEXTS), None).fingerprint


def test_empty_rows_are_dropped_instead_of_refused():
    source = texts([*TEXTS, "  ", None, ""])
    with pytest.raises(DataError, match="3 of 43 rows cannot be used"):
        clean_texts(source, None)
    with pytest.raises(DataError, match="3 of 43 rows cannot be used"):
        clean_texts(source, {"empty": False})
    task = clean_texts(source, {})
    assert [row["reason"] for row in task.cleaning.dropped] == [
        "the text is empty",
        "the text is missing",
        "the text is empty",
    ]


def test_images_of_one_colour_are_empty_and_are_no_near_copies_of_each_other():
    grey, white = Pillow.new("RGB", (20, 20), (90, 90, 90)), Pillow.new("RGB", (30, 20), "white")
    source = images([photo(n) for n in range(20)] + [grey, white])
    task = load_data(image_recipe("memory", clean={}, test_split=None), source)
    assert [(row["row"], row["kind"]) for row in task.cleaning.dropped] == [(20, "empty"), (21, "empty")]
    kept = load_data(image_recipe("memory", clean={"empty": False, "near_duplicates": 4}, test_split=None), source)
    assert kept.cleaning.dropped == []


def test_near_duplicates_of_photos():
    pictures = [photo(n, (120, 90)) for n in range(20)]
    small, poor = pictures[0].resize((60, 45)), encoded(pictures[1], "JPEG", quality=40)
    source = images([*pictures, small, poor])
    exact = load_data(image_recipe("memory", clean={}, test_split=None), source)
    assert exact.cleaning.dropped == []
    task = load_data(image_recipe("memory", clean={"near_duplicates": 4}, test_split=None), source)
    assert [row["row"] for row in task.cleaning.dropped] == [20, 21]
    assert all("of 64 bits away from train row" in row["reason"] for row in task.cleaning.dropped)


def test_max_per_class_is_seeded_and_leaves_validation_as_it_is():
    labels = ["many"] * 90 + ["few"] * 10
    source = texts([f"text {n}" for n in range(100)], labels)
    plain = clean_texts(source, None, validation=0.2)
    task, again = (clean_texts(source, {"max_per_class": 12}, validation=0.2) for _ in range(2))
    names = [task.labels.names[label] for label in task.train["label"]]
    assert (names.count("many"), names.count("few")) == (12, 8)
    assert task.validation["id"][:] == plain.validation["id"][:]
    assert task.train["id"][:] == again.train["id"][:]
    other = load_data(
        make_recipe("memory", seed=1, clean={"max_per_class": 12}, test_split=None, validation=0.2), source
    )
    assert other.train["id"][:] != task.train["id"][:]
    assert {row["reason"] for row in task.cleaning.dropped} == {"the class many has more than 12 rows"}


def test_a_row_without_label_or_broken_is_not_the_one_that_stays():
    labels = [None, "pos", *["neg", "pos"] * 10]
    source = texts(["same", "same", *TEXTS[:20]], labels)
    task = clean_texts(source, {}, on_error="skip")
    assert task.cleaning.dropped == [] and [row["row"] for row in task.skipped] == [0]
    assert 1 in [*task.train["id"], *task.validation["id"]]


def test_max_train_samples_comes_first():
    """What is not going to train is not looked at."""
    source = texts(TEXTS * 2)
    plain = clean_texts(source, None, max_train_samples=30)
    task = clean_texts(source, {}, max_train_samples=30)
    taken = {*plain.train["id"], *plain.validation["id"]}
    assert task.cleaning.looked_at == 30 and {*task.train["id"], *task.validation["id"]} <= taken


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["recipe=sst2", "data.clean={near_duplicates: 4}"], "data.clean.near_duplicates"),
        (["recipe=sst2", "data.clean={max_per_class: 5}", "data.problem_type=regression"], "data.max_train_samples"),
        (["recipe=cifar10", "data.clean={duplicates: false, empty: false}"], "data.clean=null"),
        (["recipe=cifar10", "data.clean={near_duplicates: 40}"], "16"),
        (["recipe=cifar10", "data.clean={duplicate: true}"], "duplicates"),
    ],
)
def test_rules_that_cannot_be_are_faults(overrides, words):
    with pytest.raises(RecipeError) as error:
        load_recipe(overrides[0].removeprefix("recipe="), *overrides[1:])
    assert words in str(error.value)


def test_a_validation_split_that_holds_every_training_row():
    source = DatasetDict(train=texts([*TEXTS[:3], "", " "]), dev=texts(TEXTS))
    with pytest.raises(DataError) as error:
        clean_texts(source, {}, validation="dev")
    assert str(error.value) == (
        "data.clean leaves no training row: it dropped 2 empty rows, 3 exact copies of 5 rows. The first is train row "
        "3: the text is empty.\nMend the data, name another validation split, or leave rules out: "
        "data.clean.empty=false, data.clean.duplicates=false; data.clean=null drops nothing."
    )


@pytest.mark.parametrize("validation", ["dev", 0.1])
def test_training_images_that_are_all_of_one_colour(validation):
    plain = [Pillow.new("RGB", (20, 20), (level, 0, 0)) for level in range(10)]
    source = DatasetDict(train=images(plain), dev=images([photo(n) for n in range(8)]))
    recipe = image_recipe("memory", clean={}, validation=validation, test_split=None)
    with pytest.raises(DataError, match="dropped 10 empty rows of 10 rows") as error:
        load_data(recipe, source)
    assert "validation split" not in str(error.value)


def test_numbers_have_no_classes_to_cap():
    source = texts(TEXTS, [n / 7 for n in range(40)])
    with pytest.raises(DataError, match="max_train_samples"):
        clean_texts(source, {"max_per_class": 3})
    copied = clean_texts(texts([*TEXTS, TEXTS[0]], [*(n / 7 for n in range(40)), 9.5]), {})
    assert "another label (0.0, not 9.5)" in copied.cleaning.dropped[0]["reason"]


# --- hashes and pairs ------------------------------------------------------------------------------------------------


def test_the_hash_is_that_of_imagehash():
    """Values of imagehash.phash 4.3.2 for these pictures."""
    found = [f"{perceptual_hash(photo(seed, (50, 40))):016x}" for seed in range(3)]
    assert found == ["a7b2e3075cf85c03", "f2e91267bc18ec64", "83b6d82723d8236f"]


@pytest.mark.parametrize("distance", [0, 1, 4, 9])
def test_near_pairs_are_all_pairs_within_the_distance(distance):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 60, dtype=np.uint64)
    flips = np.array(
        [sum(1 << int(bit) for bit in rng.choice(64, n % 12, replace=False)) for n in range(60)], np.uint64
    )
    hashes = np.concatenate([base, base ^ flips])
    slow = [
        (i, j, bits)
        for i in range(120)
        for j in range(i + 1, 120)
        if (bits := bin(int(hashes[i] ^ hashes[j])).count("1")) <= distance
    ]
    assert [tuple(pair) for pair in near_pairs(hashes, distance).tolist()] == slow and slow
    assert differing_bits(hashes[:60], hashes[60:]).tolist() == [bin(int(flip)).count("1") for flip in flips]


def test_pairs_in_several_pieces(monkeypatch):
    hashes = np.repeat(np.arange(30, dtype=np.uint64) << np.uint64(20), 3)
    whole = near_pairs(hashes, 2)
    monkeypatch.setattr("hf_finetune.data.cleaning_neighbours._PAIRS", 7)
    assert np.array_equal(near_pairs(hashes, 2), whole) and len(whole)


def test_copies_of_copies():
    assert exact_copies(["a", "", "b", "a", "", "a"]) == [Copy(3, 0), Copy(5, 0)]
    chain = np.array([0b000, 0b011, 0b1111, 0b011, 0b1 << 40], dtype=np.uint64)
    # 0 and 1 are near, 1 and 2 are near, 0 and 2 are not: 2 stays.
    assert near_copies(chain, range(5), 2) == [Copy(1, 0, 2), Copy(3, 0, 2), Copy(4, 0, 1)]
    assert near_copies(chain, [1, 2, 3], 2) == [Copy(2, 1, 2), Copy(3, 1, 0)]
    assert near_copies(chain, [], 2) == []


def test_facts_of_images():
    rows = images([photo(0, (40, 30)).convert("L"), encoded(photo(1, (20, 50)), "JPEG"), b"no image"])
    rows = rows.cast_column("image", datasets.Image(decode=False))
    facts = look_at_images(rows)
    assert facts.widths.tolist() == [40, 20, 0] and facts.heights.tolist() == [30, 50, 0]
    assert facts.modes == ["L", "RGB", ""] and facts.formats == ["PNG", "JPEG", ""]
    assert facts.hashes.dtype == np.uint64 and facts.hashes[2] == 0


# --- the run ---------------------------------------------------------------------------------------------------------


def test_a_run_says_and_writes_what_it_dropped(tmp_path, capsys):
    from hf_finetune import finetune

    source = load_data(image_recipe("package:digits", label="label", clean=None))
    rows = [*source.train.select(range(60)), source.train[0]]
    pictures = images([row["image"]["bytes"] for row in rows], [row["label"] % 2 for row in rows])
    recipe = load_recipe(
        "digits",
        "data.clean={duplicates: true, max_per_class: 20}",
        "data.test_split=0.2",
        "training.num_train_epochs=1",
        f"output_dir={tmp_path / 'run'}",
    )
    finetune(recipe, data=pictures)
    lines = [json.loads(line) for line in (tmp_path / "run" / "cleaned.jsonl").read_text().splitlines()]
    assert {"split", "row", "path", "kind", "reason"} == set(lines[0])
    assert sum(line.startswith("data.clean: dropped") for line in capsys.readouterr().out.splitlines()) == 1
