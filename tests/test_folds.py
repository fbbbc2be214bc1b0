"""Folds: every row once, classes in proportion, groups together; runs of folds that share what is kept."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from cache_samples import data_for, images, recipe_of
from data_samples import make_recipe, private_cache  # noqa: F401
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from run_samples import on_one_and_on_two_processes
from sklearn.metrics import accuracy_score

from hf_finetune import finetune
from hf_finetune import prefix_store as store
from hf_finetune.advice import folds as advice_folds
from hf_finetune.advice.folds import of_fold
from hf_finetune.data import load_data
from hf_finetune.data.folds import fold_numbers
from hf_finetune.data.splits import hold_out
from hf_finetune.errors import DataError, RecipeError, UserError
from hf_finetune.evaluation.folds_predictor import predictor_of_folds
from hf_finetune.publish.fold_scores import ensemble
from hf_finetune.publish.report_answers import SINGLE, TaskAnswers
from hf_finetune.runs import Run
from hf_finetune.training import prefix_fill


@settings(max_examples=25, deadline=None)
@given(classes=st.lists(st.integers(0, 4), min_size=5, max_size=120), count=st.integers(2, 5), seed=st.integers(0, 99))
def test_folds_are_of_like_size_and_each_has_its_share_of_every_class(classes, count, seed):
    rows = np.arange(0, 2 * len(classes), 2)  # numbers of a source of twice as many
    strata = np.repeat(classes, 2)
    found = fold_numbers(rows, strata, count, seed)
    sizes = np.bincount(found, minlength=count + 1)[1:]
    assert sizes.sum() == len(rows) and np.ptp(sizes) <= 1
    for each in set(classes):
        assert np.ptp(np.bincount(found[np.asarray(classes) == each], minlength=count + 1)[1:]) <= 1
    assert (found == fold_numbers(rows, strata, count, seed)).all()


def test_the_seed_decides_the_folds():
    rows, strata = np.arange(200), np.arange(200) % 4
    assert (fold_numbers(rows, strata, 5, 0) != fold_numbers(rows, strata, 5, 1)).any()
    with pytest.raises(DataError, match="3 rows cannot make 5 folds"):
        fold_numbers(np.arange(3), None, 5, 0)


@pytest.mark.parametrize("strata", [None, np.arange(300) % 3])
def test_no_group_is_in_two_folds(strata):
    groups = np.random.default_rng(0).integers(0, 40, 300)
    found = fold_numbers(np.arange(300), strata, 5, 0, groups)
    assert set(found) == {1, 2, 3, 4, 5}
    assert all(len(set(found[groups == group])) == 1 for group in range(40))
    with pytest.raises(DataError, match="2 groups"):
        fold_numbers(np.arange(300), strata, 5, 0, np.arange(300) % 2)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), share=st.floats(0.05, 0.6), many=st.integers(2, 60))
def test_whole_groups_are_held_out(seed, share, many):
    rng = np.random.default_rng(seed)
    groups, strata = rng.integers(0, many, 200), rng.integers(0, 3, 200)
    stay, held = hold_out(np.arange(200), strata, share, seed, "validation share", groups)
    assert sorted([*stay, *held]) == list(range(200)) and len(stay) and len(held)
    assert not set(groups[stay]) & set(groups[held])
    if many > 40:
        assert abs(len(held) - share * 200) < 20


def notes(rows=60):
    return {
        "text": [f"note {row} of somebody" for row in range(rows)],
        "label": ["a", "b", "c"] * (rows // 3),
        "patient": [f"p{row // 4}" if row else None for row in range(rows)],
    }


def splits_of(**data):
    source = DatasetDict(train=Dataset.from_dict(notes()), test=Dataset.from_dict(notes(9)))
    return load_data(make_recipe("memory", text="text", **data), source)


def test_every_row_of_train_is_held_out_in_one_fold_and_trains_or_validates_in_the_others():
    parts = [splits_of(fold=[number, 4], validation=0.2) for number in (1, 2, 3, 4)]
    held = [set(part.held_out["id"]) for part in parts]
    assert sorted(row for one in held for row in one) == list(range(60))
    for part, own in zip(parts, held, strict=True):
        assert set(part.train["id"]) | set(part.validation["id"]) == set(range(60)) - own
        assert part.pool["id"][:] == list(range(60)) and len(part.test) == 9
        assert sorted(part.held_out["label"]) == sorted([0, 1, 2] * 5)
    assert len({part.fingerprint for part in parts}) == 4
    assert len({part.contents["pool"] for part in parts}) == 1


def test_groups_stay_together_in_every_share_that_is_held_out():
    part = splits_of(fold=[1, 3], validation=0.2, test_split=0.2, group="patient")
    names = np.asarray(notes()["patient"], dtype=object)
    seen = [set(names[split["id"][:]]) - {None} for split in (part.train, part.validation, part.test, part.held_out)]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert not [line for line in part.warnings if "data.group" in line]
    # A split of one's own is left as it is: its groups p0 and p1 (of p1 and p2, and a row on its own) are in train too.
    assert [line.split(":")[1] for line in splits_of(group="patient").warnings if "data.group" in line] == [
        " 3 of the 3 groups of the test split test are in train too"
    ]
    with pytest.raises(DataError, match=r"data\.group=pateint: there is no such column\. Did you mean 'patient'"):
        splits_of(group="pateint")


@pytest.mark.parametrize(
    ("data", "evaluation", "said"),
    [
        ({"fold": [6, 5]}, {}, "K from 1 to N"),
        ({"fold": [1, 5]}, {"cross_validation": 5}, "one of the folds"),
        ({}, {"cross_validation": 1}, "at least 2"),
        ({"group": "text", "text": "text"}, {}, "belongs together"),
        ({"group": "patient", "streaming": "true", "text": "text"}, {}, r"data\.group .*of one group"),
        ({"fold": [1, 5], "streaming": "true", "text": "text"}, {}, r"data\.fold .*all training rows"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(data, evaluation, said):
    from hf_finetune.recipes.load import load_recipe

    base = load_recipe("digits") if "text" not in data else load_recipe("sst2")
    pairs = [f"data.{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in data.items()]
    with pytest.raises(RecipeError, match=said):
        base.with_overrides(*pairs, *(f"evaluation.{key}={value}" for key, value in evaluation.items()))


def test_tasks_have_no_folds_yet():
    from hf_finetune.recipes.load import load_recipe

    with pytest.raises(RecipeError, match="for one label column"):
        load_recipe("two_labels").with_overrides("evaluation.cross_validation=5")


def test_an_ensemble_is_the_mean_of_probabilities_of_the_same_rows():
    def model(scores, ids=(4, 7)):
        places, truth = np.arange(2), np.array([0, 1])
        return TaskAnswers("", SINGLE, ("a", "b"), places, np.array(ids), truth, np.array(scores))

    one, other = model([[0.9, 0.1], [0.6, 0.4]]), model([[0.5, 0.5], [0.2, 0.8]])
    np.testing.assert_allclose(ensemble([one, other]).scores, [[0.7, 0.3], [0.4, 0.6]])
    assert ensemble([one, other]).decided.tolist() == [0, 1]
    with pytest.raises(UserError, match="different test rows"):
        ensemble([one, model([[0.5, 0.5], [0.2, 0.8]], (4, 8))])


def folded(folder, name="run", strategy="head", family="vit", **sections):
    evaluation = {"cross_validation": 3, "bootstrap": 50, "metrics": ["accuracy", "log_loss"]}
    sections = {"data": {"dataset": "none", "validation": 0.2, "augment": "none"}, **sections}
    return recipe_of(folder, family, strategy, name, **sections, evaluation=evaluation)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "bert"])
def test_folds_are_scored_together_and_each_image_is_computed_once(tmp_path, monkeypatch, family):
    """The run and its folds: 24 rows of train and 10 of test go through the frozen part once, in fp32."""
    computed = []
    monkeypatch.setattr(prefix_fill, "_put", counting(prefix_fill._put, computed))
    run = finetune(folded(tmp_path, family=family), data=data_for(family), precision="no")
    assert sum(computed) == 24 + 10
    assert sorted(entry.meta.what.split()[-1] for entry in store.entries()) == ["pool", "test"]

    table = pd.read_parquet(run.path / "out_of_fold.parquet")
    assert table["id"].tolist() == list(range(24)) and set(table["fold"]) == {1, 2, 3}
    section = run.metrics["cross_validation"]
    assert section["accuracy"] == pytest.approx(accuracy_score(table["label"], table["prediction"]))
    low, high = section["accuracy_ci95"]
    assert low <= section["accuracy"] <= high and section["samples"] == 24
    by_hand = [(part["label"] == part["prediction"]).mean() for _, part in table.groupby("fold")]
    assert section["by_fold"]["accuracy"] == pytest.approx(by_hand)

    tests = [pd.read_parquet(run.path / "folds" / str(number) / "predictions.parquet") for number in (1, 2, 3)]
    mean = np.mean([np.stack(test["probabilities"]) for test in tests], axis=0)
    said = np.asarray(["a", "b", "c"])[mean.argmax(axis=1)]
    assert section["ensemble"]["accuracy"] == pytest.approx((said == tests[0]["label"]).mean())
    key = "image" if family == "vit" else "text"
    together = run.predict(load_data(run.recipe, data_for(family)).test[key][:], folds=True, top=3)
    by_name = [{one["label"]: one["score"] for one in said} for said in together]
    np.testing.assert_allclose([[said[name] for name in "abc"] for said in by_name], mean, atol=1e-5)
    assert "### Cross-validation" in (run.path / "README.md").read_text()
    assert run.metrics["test"]["samples"] == 10  # the run itself is as ever


def test_what_has_no_folds_cannot_answer_with_them(tmp_path):
    recipe = folded(tmp_path)
    with pytest.raises(UserError, match="tells of no cross_validation"):
        predictor_of_folds(tmp_path, recipe)
    (tmp_path / "metrics.json").write_text(json.dumps({"cross_validation": {"folds": 2}}))
    with pytest.raises(UserError, match=r"folds/1, .*folds/2 is missing"):
        predictor_of_folds(tmp_path, recipe)


def test_folds_of_another_number_are_refused_before_any_is_run(tmp_path):
    """One of two was refused as another run, the third was trained, and metrics.json kept the old two."""
    recipe = folded(tmp_path)
    two = recipe.with_overrides("evaluation.cross_validation=2")
    place = tmp_path / "run" / "folds" / "1"
    place.mkdir(parents=True)
    (place / "recipe.yaml").write_text(of_fold(two, 1).to_yaml())
    begun = []
    with pytest.raises(UserError, match=r"runs of 2 folds, and evaluation\.cross_validation=3"):
        advice_folds.with_folds(recipe, Run.__new__(Run), begun.append)
    assert not begun


def counting(put, computed):
    def counted(out, found, rows, starts, start):
        computed.append(len(rows))
        put(out, found, rows, starts, start)

    return counted


@pytest.mark.slow
def test_the_run_of_folds_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    whole = finetune(folded(tmp_path, "whole"), data=data_for("vit"), precision="no")
    recipe = folded(tmp_path, "broken")
    trials, begun = advice_folds.run_trials, []
    with monkeypatch.context() as patch:
        patch.setattr(advice_folds, "run_trials", stopping(trials, begun))
        with pytest.raises(KeyboardInterrupt):
            finetune(recipe, data=data_for("vit"), precision="no")
    assert "cross_validation" not in json.loads((tmp_path / "broken" / "metrics.json").read_text())
    kept = (tmp_path / "broken" / "folds" / "1" / "metrics.json").stat().st_mtime_ns
    run = finetune(recipe, data=data_for("vit"), precision="no")
    assert run.metrics["cross_validation"] == whole.metrics["cross_validation"]
    assert (tmp_path / "broken" / "folds" / "1" / "metrics.json").stat().st_mtime_ns == kept
    again = finetune(recipe, data=data_for("vit"), precision="no")
    assert again.metrics == run.metrics


def stopping(trials, begun):
    """`run_trials` whose third run is stopped by a person."""

    def run(plan, one):
        def each(recipe):
            begun.append(recipe.output_dir)
            if len(begun) == 3:
                raise KeyboardInterrupt
            return one(recipe)

        return trials(plan, each)

    return run


@pytest.mark.slow
def test_folds_of_other_strategies_and_labels(tmp_path):
    """Everything learns; and numbers, whose answers are averaged."""
    rng = np.random.default_rng(0)
    numbers = DatasetDict()
    for name, rows, seed in (("train", 24, 0), ("test", 10, 200)):
        numbers[name] = images(rows, seed).remove_columns("label").add_column("size", rng.normal(size=rows))
    data = {"dataset": "none", "validation": 0.2, "augment": "none", "label": "size"}
    recipe = folded(tmp_path, strategy="full", data=data).with_overrides("evaluation.metrics=[mse, r2]")
    run = finetune(recipe, data=numbers, precision="no")
    table = pd.read_parquet(run.path / "out_of_fold.parquet")
    section = run.metrics["cross_validation"]
    assert section["mse"] == pytest.approx(((table["label"] - table["prediction"]) ** 2).mean(), rel=1e-5)
    tests = [pd.read_parquet(run.path / "folds" / str(number) / "predictions.parquet") for number in (1, 2, 3)]
    mean = np.mean([test["prediction"] for test in tests], axis=0)
    assert section["ensemble"]["mse"] == pytest.approx(((mean - tests[0]["label"]) ** 2).mean(), rel=1e-5)


def test_a_fold_is_an_ordinary_recipe(tmp_path):
    recipe = folded(tmp_path)
    one = of_fold(recipe, 2)
    assert one.data.fold == (2, 3) and one.evaluation.cross_validation is None
    assert one.output_dir.endswith("run/folds/2") and type(one).model_validate(one.model_dump()) == one


@pytest.mark.distributed
@pytest.mark.long
def test_folds_are_the_same_on_two_processes(call, run_in):
    job = ("recipe=digits", "strategy=head", "data.max_train_samples=120", "data.max_eval_samples=40")
    job += ("training.num_train_epochs=2", "evaluation.cross_validation=2", "evaluation.bootstrap=50")
    both = on_one_and_on_two_processes(call, run_in, job, 8)
    one, two = (pd.read_parquet(folder / "out_of_fold.parquet") for folder in both[:2])
    assert one[["id", "label", "fold"]].equals(two[["id", "label", "fold"]])
    np.testing.assert_allclose(np.stack(one["probabilities"]), np.stack(two["probabilities"]), atol=1e-4)
