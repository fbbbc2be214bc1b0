"""The doctor: what it finds in small data with known faults, what it says, what never stops it."""

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from data_samples import broken_folder, encoded, photo, private_cache  # noqa: F401
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from model_samples import TEXT_FAMILIES, save_checkpoint, sweep

from hf_finetune.advice import doctor_features, examine
from hf_finetune.advice.doctor_errors import out_of_fold
from hf_finetune.advice.doctor_features import load_checkpoint, pooled_features
from hf_finetune.advice.doctor_leaks import how_much
from hf_finetune.advice.doctor_material import gather
from hf_finetune.cli import main
from hf_finetune.data import collate_images, image_samples
from hf_finetune.errors import DataError
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.model.heads import output_layer
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.precision import NumberFormat

ERRORS = "Likely label errors"
LEAKS = "Columns that tell the label"


@pytest.fixture(scope="module")
def digits():
    """300 training and 60 test digits with 8 flipped labels, 3 copies across splits and 2 broken images."""
    source = {name: list(rows.cast_column("image", Image(decode=False))) for name, rows in _digits().items()}
    train, test = source["train"][:300], source["test"][:60]
    rng = np.random.default_rng(0)
    flipped = sorted(rng.choice(300, 8, replace=False).tolist())
    for row in flipped:
        train[row]["label"] = (train[row]["label"] + 5) % 10
    clear = [row for row in range(300) if row not in flipped][:3]
    test += [dict(train[row]) for row in clear]
    train += [{"image": {"bytes": b"no image", "path": None}, "label": 1}]
    test += [{"image": {"bytes": b"", "path": None}, "label": 2}]
    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    made = DatasetDict(
        {name: Dataset.from_list(rows, features=features) for name, rows in (("train", train), ("test", test))}
    )
    return made, flipped, clear


def _digits():
    from hf_finetune.data.packages import read_package

    return read_package("digits")


def table(**columns):
    return Dataset.from_dict(columns)


def text_recipe(checkpoint="none", **data):
    return Recipe(
        task="text-classification",
        model={"checkpoint": str(checkpoint)},
        data={"dataset": "memory", "test_split": None, **data},
    )


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in rng.integers(3, 50, rng.integers(3, 9))) for _ in range(count)]


# --- what it finds ---------------------------------------------------------------------------------------------------


def test_flips_copies_and_broken_images_are_found(digits):
    source, flipped, clear = digits
    report = examine(load_recipe("digits"), data=source)
    broken = [(row["split"], row["row"]) for row in report["Broken rows"].facts["rows"]]
    assert broken == [("train", 300), ("test", 60 + 3)]
    exact = [(pair["split"], pair["row"], pair["copy_of"]["row"]) for pair in report["Copies"].facts["exact"]]
    assert exact == [("train", row, 60 + place) for place, row in enumerate(clear)]
    suspects = [(one["split"], one["row"]) for one in report[ERRORS].facts["suspects"]]
    assert len({("train", row) for row in flipped} & set(suspects[:12])) >= 7
    first = report[ERRORS].facts["suspects"][0]
    assert first["given"] != first["likely"] and 0 <= first["probability_of_given"] < first["confidence"] <= 1
    words = report.in_words()
    for said in ("data.on_error=skip", "3 of test rows in train", "by heart", "all 8 x 8", f"train row {flipped[0]}"):
        assert said in words, words
    assert "none" in report[LEAKS].lines[0]


def test_sound_data_gives_no_advice(digits):
    pictures = [encoded(photo(seed)) for seed in range(60)]
    image = {"image": [{"bytes": picture, "path": None} for picture in pictures], "label": [n % 2 for n in range(60)]}
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    recipe = load_recipe("digits", "data.test_split=null", "model.checkpoint=/nowhere")
    report = examine(recipe, data=Dataset.from_dict(image, features=features))
    assert [section.title for section in report.sections if section.advice] == [ERRORS]
    assert "not looked at: /nowhere" in report[ERRORS].lines[0]
    assert "name a checkpoint that loads" in report.in_words() and "1 suggestion" in report.in_words()


def test_class_folders_with_broken_files_and_images_of_one_colour(tmp_path):
    root, truncated, notes = broken_folder(tmp_path)
    photo(0).resize((1, 1)).resize((40, 30)).save(root / "train" / "ants" / "plain.png")
    recipe = load_recipe("digits", f"data.dataset={root}", "model.checkpoint=/nowhere")
    report = examine(recipe)
    assert {row["path"] for row in report["Broken rows"].facts["rows"]} == {str(truncated), str(notes)}
    facts = report["Images"].facts["train"]
    assert facts["width"] == {"min": 30, "median": 40, "max": 40}  # one is turned by its EXIF tag
    assert {"RGB", "CMYK", "I;16"} <= set(facts["modes"]) and len(facts["one_colour"]) == 1
    assert "data.clean='{empty: true}'" in report.in_words()
    assert "file name" not in report[LEAKS].facts.get("told", {})


def test_copies_with_two_labels_and_the_advice_cleans_them():
    made = sentences(60)
    train = table(text=[*made, made[0], made[1]], label=[*["no", "yes"] * 30, "no", "no"])
    report = examine(text_recipe(), data=train)
    exact = report["Copies"].facts["exact"]
    assert [(pair["row"], pair["contradict"]) for pair in exact] == [(60, False), (61, True)]
    assert exact[1]["labels"] == ["no", "yes"] and "labels no and yes" in report.in_words()
    advice = next(line for line in report["Copies"].advice if "data.clean" in line)
    override = re.search(r"data\.clean='(.*?)'", advice).group(1)
    assert load_recipe("sst2", f"data.clean={override}").data.clean.duplicates


def test_near_copies_of_photos_and_of_simple_pictures(digits):
    pictures = [photo(seed, (120, 90)) for seed in range(30)]
    content = [{"bytes": encoded(p), "path": None} for p in [*pictures, pictures[4].resize((60, 45))]]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    source = Dataset.from_dict({"image": content, "label": [n % 2 for n in range(31)]}, features=features)
    recipe = load_recipe("digits", "data.test_split=null", "model.checkpoint=/nowhere")
    section = examine(recipe, data=source)["Copies"]
    assert [(pair["row"], pair["copy_of"]["row"]) for pair in section.facts["near"]] == [(30, 4)]
    assert "data.clean='{near_duplicates: 4}'" in section.advice[-1]
    grey = examine(load_recipe("digits", "model.checkpoint=/nowhere"), data=digits[0])["Copies"]
    assert grey.facts["near"] and "simple pictures" in grey.advice[-2] + grey.advice[-1] + grey.advice[0]


def test_label_names_that_differ():
    train = table(text=sentences(40), label=["ants", "bees", "Bees ", "wasps"] * 10)
    test = table(text=sentences(20, 1), label=["Ants", "bees", "bees", "hornets"] * 5)
    recipe = text_recipe(test_split="test")
    section = examine(recipe, data=DatasetDict(train=train, test=test))["Label names"]
    assert section.facts["strangers"] == {"test": {"Ants": 5, "hornets": 5}}
    assert "rename it to 'ants'" in section.advice[0] and "add training rows" in section.advice[1]
    assert any("'Bees' and 'bees'" in line for line in section.lines)
    assert set(section.facts["absent"]["test"]) == {"ants", "Bees", "wasps"}


def test_uneven_and_rare_classes():
    section = examine(text_recipe(), data=table(text=sentences(70), label=["a"] * 60 + ["b"] * 7 + ["c"] * 3))[
        "Classes"
    ]
    assert section.facts["rows_of_class"]["train"] == {"a": 60, "b": 7, "c": 3}
    assert "loss.class_weights=balanced" in section.advice[0] and "b, c: fewer than 10" in section.advice[1]


def test_token_lengths_and_what_is_cut(tmp_path):
    checkpoint = save_checkpoint("bert", tmp_path / "bert", num_labels=2)
    long = " ".join(["w5"] * 30)
    train = table(text=[*sentences(76), *[long] * 4], label=["no", "yes"] * 40)
    recipe = text_recipe(checkpoint, max_length=16)
    report = examine(recipe, data=train)
    facts = report["Texts"].facts["train"]
    assert facts["tokens"]["max"] == 30 + (facts["tokens"]["min"] - 3) and facts["cut"] == pytest.approx(4 / 80)
    assert "data.max_length=32 or data.long_text=windows" in report["Texts"].advice[0]
    assert not examine(text_recipe(checkpoint, max_length=40), data=train)["Texts"].advice


# --- columns that tell the label -------------------------------------------------------------------------------------


def test_columns_that_tell_the_label():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    train = table(
        text=sentences(300),
        label=[f"class {label}" for label in labels],
        answer=[f"is {label}" for label in labels],
        score=labels * 1.0 + rng.normal(0, 0.05, 300),
        source=[f"scan_{'xyz'[label]}_{n:05}" for n, label in enumerate(labels)],
        tags=[["a", str(label)] for label in labels],
        row_id=list(range(300)),
        noise=rng.normal(size=300),
        site=[f"site {n % 7}" for n in range(300)],
        nothing=[None] * 300,
    )
    section = examine(text_recipe(text="text", label="label"), data=train)[LEAKS]
    told = section.facts["told"]
    assert {name for name, share in told.items() if share >= 0.9} == {"answer", "score", "source", "tags"}
    assert all(told[name] < 0.2 for name in ("row_id", "noise", "site", "nothing", "length of text"))
    assert len(section.advice) == 4 and "never use it as an input" in section.advice[0]
    assert any("source tells 100% of the label by its letters" in line for line in section.lines)


def test_an_id_in_the_order_of_the_classes_and_the_size_of_images_tell_it():
    labels = sorted(n % 4 for n in range(200))
    assert how_much(np.arange(200.0), np.array(labels), True) > 0.9
    assert how_much(np.arange(200.0), np.array(labels) * 2.5, False) > 0.9
    assert how_much(["x"] * 200, np.array(labels), True) == 0
    pictures = [encoded(photo(seed, (40 + 10 * (seed % 2), 30))) for seed in range(80)]
    content = [{"bytes": picture, "path": f"{n}.png"} for n, picture in enumerate(pictures)]
    features = Features({"image": Image(), "label": Value("int64")})
    source = Dataset.from_dict({"image": content, "label": [n % 2 for n in range(80)]}, features=features)
    recipe = load_recipe("digits", "data.test_split=null", "model.checkpoint=/nowhere")
    section = examine(recipe, data=source)[LEAKS]
    assert section.facts["told"]["image width"] == 1 and section.facts["told"]["image height"] == 0
    assert section.facts["told"]["file name"] < 0.2
    assert "differs between the classes" in section.advice[0]


# --- what does not apply, what never stops ---------------------------------------------------------------------------


def test_regression_and_multi_label_say_what_is_skipped():
    numbers = examine(text_recipe(), data=table(text=sentences(60), label=[n / 7 for n in range(60)]))
    assert numbers["Targets"].facts["train.label"]["max"] == pytest.approx(59 / 7)
    many = examine(text_recipe(), data=table(text=sentences(60), label=[["a"], ["a", "b"], []] * 20))
    assert many["Classes"].facts["rows_of_class"]["train"] == {"a": 40, "b": 20}
    assert "multi label" in many[LEAKS].lines[0]


@pytest.mark.parametrize("label", [0.5, ["a", "b"]])
def test_label_errors_are_for_single_labels(label, tmp_path):
    checkpoint = save_checkpoint("bert", tmp_path / "bert", num_labels=2)
    other = 1.5 if isinstance(label, float) else ["a"]
    report = examine(text_recipe(checkpoint), data=table(text=sentences(40), label=[label, other] * 20))
    assert "for single-label classes" in report[ERRORS].lines[0] and not report[ERRORS].advice


def test_without_cleanlab_it_says_how_to_get_it(digits, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "cleanlab" else find(name, *rest)
    )
    section = examine(load_recipe("digits"), data=digits[0])[ERRORS]
    assert section.advice == ["pip install 'hf_finetune[doctor]' lets the doctor look for label errors"]


def test_a_missing_test_split_is_told_and_a_missing_train_split_stops():
    train = table(text=sentences(20), label=["no", "yes"] * 10)
    report = examine(text_recipe(test_split="tset"), data=DatasetDict(train=train, test=train))
    assert "data.test_split=tset: there is no such split. Did you mean 'test'?" in report["Rows"].advice[0]
    assert report["Rows"].facts["splits"] == {"train": 20, "test": 20}
    with pytest.raises(DataError, match=r"data\.train_split"):
        examine(text_recipe(train_split="trian"), data=DatasetDict(train=train))


def test_a_class_with_two_rows_does_not_stop_it(digits):
    source = digits[0]["train"].select(range(60)).filter(lambda row: row["label"] in (0, 1, 2))
    rare = [row for row, label in enumerate(source["label"]) if label == 2][2:]
    source = source.select([row for row in range(len(source)) if row not in rare])
    report = examine(load_recipe("digits", "data.test_split=null"), data=source)
    counts = report["Classes"].facts["rows_of_class"]["train"]
    assert counts["2"] <= 2 and report[ERRORS].facts["rows"] == counts["0"] + counts["1"]


# --- samples, features, probabilities --------------------------------------------------------------------------------


def test_max_samples_bounds_what_the_checkpoint_looks_at(digits):
    report = examine(load_recipe("digits"), data=digits[0], max_samples=100)
    assert report[ERRORS].facts["rows"] <= 100
    again = examine(load_recipe("digits"), data=digits[0], max_samples=100)
    assert again.as_json() == report.as_json()
    taken = [rows.tolist() for _, rows in gather(load_recipe("digits"), digits[0]).sample(100, labeled=True)]
    other = [rows.tolist() for _, rows in gather(load_recipe("digits", "seed=1"), digits[0]).sample(100, labeled=True)]
    assert taken != other and sum(map(len, taken)) == 100


@pytest.mark.parametrize("family", sweep())
def test_features_of_every_kind_of_checkpoint(family, tmp_path, monkeypatch):
    """Of images they are what the output layer is given."""
    monkeypatch.setattr(doctor_features, "choose_precision", lambda option: NumberFormat("no", ""))
    checkpoint = save_checkpoint(family, tmp_path / family)
    if family in TEXT_FAMILIES:
        recipe, source = text_recipe(checkpoint), table(text=sentences(12), label=["no", "yes"] * 6)
    else:
        features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
        content = [{"bytes": encoded(photo(seed)), "path": None} for seed in range(12)]
        source = Dataset.from_dict({"image": content, "label": [0, 1] * 6}, features=features)
        recipe = load_recipe("digits", f"model.checkpoint={checkpoint}", "data.test_split=null")
    material = gather(recipe, source)
    loaded = load_checkpoint(recipe, material.labels)
    found = pooled_features(loaded, recipe, material.train.rows)
    alone = pooled_features(loaded, recipe, material.train.rows.select([3]))
    assert found.shape[0] == 12 and found.ndim == 2 and np.isfinite(found).all()
    np.testing.assert_allclose(found[3], alone[0], atol=1e-4)
    if family in TEXT_FAMILIES:
        assert len(np.unique(found.round(4), axis=0)) == 12
        return
    samples = image_samples(material.train.rows, loaded.processor)
    logits = predict_logits(loaded.model, samples, collate_images)
    layer = loaded.model.get_submodule(output_layer(loaded.model, loaded.anatomy))
    with torch.no_grad():
        np.testing.assert_allclose(layer(torch.from_numpy(found)).numpy(), logits, atol=1e-4)


def test_out_of_fold_probabilities_are_of_rows_not_fitted_on():
    """On labels without a pattern, a classifier that had seen them would be right."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(120, 100)), rng.permutation(np.arange(120) % 2)
    likely = out_of_fold(features, labels, 0)
    np.testing.assert_allclose(likely.sum(1), 1)
    assert (likely.argmax(1) == labels).mean() < 0.65
    features[:, 0] += 8 * labels
    assert (out_of_fold(features, labels, 0).argmax(1) == labels).mean() > 0.95


# --- the verb --------------------------------------------------------------------------------------------------------


def test_the_verb_prints_and_writes_json(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert main(["doctor", "recipe=digits", "--max-samples", "120", "--json", str(file), "seed=3"]) == 0
    out = capsys.readouterr().out
    for title in ("Rows", "Classes", "Label names", "Broken rows", "Copies", "Images", ERRORS, LEAKS):
        assert f"\n{title}\n" in out
    found = json.loads(file.read_text())
    assert found["Rows"]["splits"] == {"train": 1437, "test": 360}
    assert {"split", "row", "given", "likely", "confidence"} <= set(found[ERRORS]["suspects"][0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=1"], "recipe= is missing"),
        (["recipe=digits", "--max-samples", "0"], "--max-samples must be at least 1"),
        (["recipe=digits", "data.clena=null"], "data.clean"),
        (["recipe=digits", "data.dataset=/nowhere"], "/nowhere"),
    ],
)
def test_the_verbs_faults(arguments, words, capsys):
    assert main(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err
