"""Temperature, thresholds and prediction sets: what they mean, that they are kept, and that every answer uses them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from cache_samples import images, recipe_of
from datasets import DatasetDict
from evaluation_samples import image_model, save_model, text_model, texts
from evaluation_samples import images as shown_images
from huggingface_hub import ImageClassificationOutputElement
from sklearn.metrics import f1_score
from transformers import pipeline

from hf_finetune import finetune, load_recipe
from hf_finetune.data import load_data
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.evaluation import compute_metrics
from hf_finetune.evaluation.commands import predict_command
from hf_finetune.evaluation.conformal import conformal_quantile, least_rows, set_scores
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.evaluation.temperature import fit_temperature, how_calibrated
from hf_finetune.evaluation.thresholds import best_thresholds
from hf_finetune.model import load_finished
from hf_finetune.outputs import KEY, Rule, probabilities
from hf_finetune.publish.export_check import compare

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def honest(rows=4000, classes=5, seed=0, several=False):
    """Logits of a model that is exactly as sure as it is right, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(rows, classes))
    if several:
        return logits, (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, (likely.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_taken_away_is_found(several, heat):
    """A model that is too sure by a factor gets it back; the calibration error goes, and no decision changes."""
    logits, labels = honest(several=several)
    problem = MULTI if several else SINGLE
    wrong = (logits * heat).astype(np.float32)
    found = fit_temperature(wrong, labels, problem)
    assert found == pytest.approx(heat, rel=0.06)
    tempered = Rule(found).tempered(wrong)
    before, after = (how_calibrated(each, labels, problem) for each in (wrong, tempered))
    assert after["log_loss"] <= before["log_loss"] + 1e-9 and after["ece"] < 0.03
    assert (tempered.argmax(axis=1) == wrong.argmax(axis=1)).all() and tempered.dtype == np.float32


def test_it_is_the_minimum():
    """No temperature nearby has a smaller loss, as torch computes it."""
    logits, labels = honest(500, seed=1)
    found = fit_temperature(logits, labels, SINGLE)

    def loss(temperature):
        return torch.nn.functional.cross_entropy(torch.tensor(logits) / temperature, torch.tensor(labels)).item()

    assert loss(found) <= min(loss(found * 1.002), loss(found / 1.002))


def test_where_every_row_is_right_there_is_no_temperature(capsys):
    labels = np.arange(30) % 3
    assert fit_temperature(np.eye(3)[labels] * 4, labels, SINGLE) == 1.0
    assert "all 30 validation rows are right" in capsys.readouterr().err
    assert fit_temperature(np.full((30, 3), np.nan), labels, SINGLE) == 1.0


def test_a_threshold_is_the_best_one_between_two_rows():
    logits, labels = honest(80, several=True)
    logits = logits - np.array([0, 1, 2, 3, 4])  # rarer and rarer to be given at 0.5
    found = best_thresholds(logits, labels)
    rule = Rule(thresholds=found)
    for label in range(5):
        own, true = logits[:, label], labels[:, label]
        chosen = f1_score(true, rule.decided(logits, MULTI)[:, label])
        assert chosen == pytest.approx(max(f1_score(true, own >= cut) for cut in own))
    scores = [
        compute_metrics(each, labels, MULTI, ["macro_f1"])["macro_f1"] for each in (logits, rule.decisive(logits))
    ]
    assert scores[1] > scores[0] + 0.05
    likely = probabilities(logits, MULTI)
    assert (rule.decided(logits, MULTI) == (likely > np.array(found))).all()


def test_a_label_that_validation_does_not_have_keeps_one_half():
    logits, labels = honest(50, several=True)
    labels[:, 2] = 0
    assert best_thresholds(logits, labels)[2] == 0.5
    assert best_thresholds(np.zeros((4, 1)), np.ones((4, 1)))[0] < 0.5  # all rows are alike, and all have it


def test_a_set_holds_the_right_class_as_often_as_it_promises():
    """Over many draws of validation and test the coverage is what was asked for, whatever the model is worth."""
    logits, labels = honest(40_000, seed=3)
    likely = probabilities(logits * 5, SINGLE)  # far too sure: the sets do not mind
    covered = []
    for start in range(0, 40_000, 400):
        own, rest = slice(start, start + 100), slice(start + 100, start + 400)
        rule = Rule(coverage=0.9, quantile=conformal_quantile(likely[own], labels[own], 0.9))
        covered.append(set_scores(rule, likely[rest], labels[rest], resamples=0)["set_coverage"])
    # The promise: at least 0.9, and at most 1 / 101 more.
    assert 0.9 - 0.006 <= np.mean(covered) <= 0.9 + 1 / 101 + 0.006


def test_the_quantile_counts_one_row_more_than_there_are():
    """ceil(10 x 0.9) = 9: the strangest of nine rows; with eight no bound would do."""
    likely = np.stack([np.linspace(0.1, 0.9, 9), 1 - np.linspace(0.1, 0.9, 9)], axis=1).astype(np.float32)
    assert conformal_quantile(likely, np.zeros(9, int), 0.9) == pytest.approx(0.9)
    assert [least_rows(each) for each in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    with pytest.raises(UserError, match="at least 9 validation rows, and there are 8"):
        conformal_quantile(likely[:8], np.zeros(8, int), 0.9)


def test_scores_of_sets_are_counted():
    rule = Rule(coverage=0.9, quantile=0.65)
    likely = np.array([[0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.34, 0.33, 0.33]], np.float32)
    found = set_scores(rule, likely, np.array([1, 1, 0]), resamples=200)
    assert (found["set_coverage"], found["set_size"], found["empty_sets"]) == (
        pytest.approx(1 / 3),
        1.0,
        pytest.approx(1 / 3),
    )
    low, high = found["set_coverage_ci95"]
    assert low <= 1 / 3 <= high


def test_a_rule_survives_the_config_of_every_kind_of_model(tmp_path):
    from transformers import BertConfig, TimmWrapperConfig

    rule = Rule(1.7, (0.25, 0.5), 0.9, 0.8125)
    for place, config in enumerate((BertConfig(), TimmWrapperConfig())):
        rule.keep(config)
        config.save_pretrained(tmp_path / str(place))
        again = type(config).from_pretrained(tmp_path / str(place))
        assert Rule.of(again) == rule
        Rule().keep(again)
        assert KEY not in again.to_dict() and Rule.of(again) == Rule()
    BertConfig(**{KEY: {"temperature": 2.0}})
    for bad in ({"temperature": 0}, {"temperature": "hot"}, {"cold": 1}, [1]):
        with pytest.raises(UserError, match="Remove it"):
            Rule.of(BertConfig(**{KEY: bad}))


@pytest.fixture(scope="module")
def ruled(tmp_path_factory):
    """A model that keeps a temperature and makes sets, its folder, and the same without."""
    plain = save_model(tmp_path_factory.mktemp("plain"), image_model())
    model, processor = image_model()
    likely = Predictor(load_finished(plain)).answer(shown_images(7)).probabilities
    Rule(0.5, coverage=0.9, quantile=float(1 - np.median(likely))).keep(model.config)
    return save_model(tmp_path_factory.mktemp("ruled"), (model, processor)), plain


def test_predictions_are_tempered_and_bring_sets(ruled):
    folder, plain = ruled
    ours, raw = (Predictor(load_finished(each)) for each in (folder, plain))
    answers, before = ours.answer(shown_images(7)), raw.answer(shown_images(7))
    np.testing.assert_allclose(answers.logits, before.logits / 0.5, rtol=1e-6)
    np.testing.assert_allclose(answers.probabilities, probabilities(before.logits / 0.5, SINGLE), atol=1e-6)
    for said, likely in zip(ours.in_words(answers), answers.probabilities, strict=True):
        inside = [
            place for place in np.argsort(-likely, kind="stable") if 1 - float(likely[place]) <= ours.rule.quantile
        ]
        assert said["set"] == [ours.names[place] for place in inside]
        assert said["score"] == pytest.approx(float(likely.max()))
    # transformers' own pipeline does not know the temperature.
    theirs = pipeline("image-classification", model=str(folder))(shown_images(1)[0])
    assert theirs[0]["score"] == pytest.approx(float(before.probabilities[0].max()), abs=1e-5)


def test_a_server_answers_with_sets_too(ruled):
    """In the best answer, under the key of `predict`; the Hub's client takes it as it takes any answer."""
    pytest.importorskip("fastapi", reason='needs the extra: pip install "hf_finetune[serve]"')
    from hf_finetune.publish.serve_app import shaped
    from hf_finetune.publish.serve_inputs import Asked

    own = Predictor(load_finished(ruled[0]))
    answers = own.answer(shown_images(3))
    said = shaped(own, Asked([], many=True, top=2), own.in_words(answers, top=len(own.names)))
    assert [one[0]["set"] for one in said] == [one["set"] for one in own.in_words(answers)]
    assert all(len(one) == 2 and "set" not in one[1] for one in said)
    assert ImageClassificationOutputElement.parse_obj_as_list(said[0])[0].label == said[0][0]["label"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_have_a_column_of_sets(ruled, tmp_path, suffix):
    folder, _ = ruled
    for place, image in enumerate(shown_images(3)):
        image.save(tmp_path / f"{place}.png")
    out = tmp_path / f"said{suffix}"
    assert predict_command(str(folder), [str(tmp_path / f"{place}.png") for place in range(3)], out=str(out)) == 0
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    own = Predictor(load_finished(folder))
    wanted = [said["set"] for said in own.in_words(own.answer(shown_images(3)))]
    assert [json.loads(each) if suffix == ".csv" else list(each) for each in table["set"]] == wanted


def test_labels_are_given_above_their_thresholds(tmp_path):
    model, tokenizer = text_model(problem="multi_label_classification")
    shown = texts(3)
    plain = save_model(tmp_path / "plain", (model, tokenizer))
    likely = Predictor(load_finished(plain)).answer(shown).probabilities
    cuts = tuple(float(cut) for cut in np.sort(likely, axis=0)[:2].mean(axis=0))  # two of three texts are above
    Rule(thresholds=cuts).keep(model.config)
    own = Predictor(load_finished(save_model(tmp_path / "own", (model, tokenizer))))
    every = own.in_words(own.answer(shown), top=len(own.names))  # as a server answers
    for said, row in zip(own.in_words(own.answer(shown)), every, strict=True):
        assert said == [{"label": one["label"], "score": one["score"]} for one in row if one["given"]]
    assert not {one["given"] for row in every for one in row} - {True, False}
    for said, row in zip(own.in_words(own.answer(shown)), likely, strict=True):
        assert {each["label"] for each in said} == {
            name for name, p, cut in zip(own.names, row, cuts, strict=True) if p > cut
        }


def test_an_export_is_judged_by_the_answers_that_are_given():
    """A difference of logits that softmax hides is seen where the temperature brings it out."""
    from hf_finetune.data import LabelSpace

    one = np.array([[30.0, 10.0]], np.float32)
    other = one + np.array([[0.0, 1.0]], np.float32)
    labels = LabelSpace(SINGLE, ("a", "b"))
    assert compare(one, other, labels).good
    assert not compare(one, other, labels, Rule(20.0)).good


@pytest.mark.parametrize(
    ("problem", "pair", "said"),
    [
        ("regression", "calibration=temperature", "probabilities of classes"),
        ("single_label_classification", "thresholds=per_class", "several labels a row"),
        ("multi_label_classification", "conformal=0.9", "of which one class is right"),
        ("single_label_classification", "conformal=1", "less than 1|more than 0"),
        ("single_label_classification", "calibration=temprature", "did you mean temperature"),
    ],
)
def test_what_does_not_go_with_the_labels_is_told(problem, pair, said):
    base = load_recipe("digits")
    metrics = "[mse]" if problem == "regression" else "null"
    with pytest.raises(RecipeError, match=said):
        base.with_overrides(f"data.problem_type={problem}", f"evaluation.metrics={metrics}", f"evaluation.{pair}")


def test_without_validation_rows_there_is_nothing_to_fit(tmp_path):
    """There is no run without a validation split; one too small for sets is told before training."""
    with pytest.raises(RecipeError, match=r"data\.validation"):
        load_recipe("digits").with_overrides("data.validation=null", "evaluation.conformal=0.9")
    recipe = recipe_of(tmp_path, "vit", "head", "few", data={"dataset": "none", "validation": "validation"})
    recipe = recipe.with_overrides("evaluation.conformal=0.95")
    splits = DatasetDict(train=images(12, 0), validation=images(9, 50), test=images(6, 90))
    with pytest.raises(UserError, match="at least 19 validation rows, and there are 9"):
        finetune(recipe, data=splits, precision="no")


@pytest.mark.slow
def test_a_run_keeps_its_rule_and_scores_by_it(tmp_path):
    """ECE before and after, sets with their coverage; what is saved answers as the run was scored."""
    rows = ("data.max_train_samples=150", "data.validation=0.4", "data.max_eval_samples=60", "data.augment=none")
    options = (*rows, "strategy=full", "training.num_train_epochs=2", "evaluation.metrics=[accuracy, ece]")
    recipe = load_recipe("digits").with_overrides(*options, f"output_dir={tmp_path}/run")
    recipe = recipe.with_overrides("evaluation.calibration=temperature", "evaluation.conformal=0.8")
    run = finetune(recipe, precision="no")
    rule = Rule.of(run.model.config)
    assert rule.temperature != 1 and rule.coverage == 0.8
    told = run.metrics["calibration"]
    assert told["temperature"] == rule.temperature
    assert told["validation"]["log_loss"]["after"] <= told["validation"]["log_loss"]["before"]
    assert told["test"]["ece"]["after"] == pytest.approx(run.metrics["test"]["ece"])

    table = pd.read_parquet(run.path / "predictions.parquet")
    covered = [label in said for label, said in zip(table["label"], table["set"], strict=True)]
    assert run.metrics["conformal"]["test"]["set_coverage"] == pytest.approx(np.mean(covered))
    assert run.metrics["conformal"]["test"]["set_size"] == pytest.approx(table["set"].map(len).mean())
    said = run.predict(load_data(recipe).test["image"][:])
    np.testing.assert_allclose(
        [each["score"] for each in said], np.stack(table["probabilities"]).max(axis=1), atol=1e-5
    )
    assert "temperature" in (run.path / "README.md").read_text()

    # A model that is fine-tuned further without asking for it has none.
    further = recipe.with_overrides(
        f"model.checkpoint={run.path}",
        "evaluation.calibration=none",
        "evaluation.conformal=null",
        f"output_dir={tmp_path}/two",
    )
    assert KEY not in json.loads((finetune(further, precision="no").path / "config.json").read_text())


@pytest.mark.slow
def test_a_run_of_several_labels_keeps_thresholds(tmp_path):
    from datasets import Dataset

    rng = np.random.default_rng(0)

    def rows(count, seed):
        return Dataset.from_dict(
            {
                "text": [" ".join(f"w{n}" for n in rng.integers(3, 50, 6)) for _ in range(count)],
                "label": [[name for name in "abc" if rng.random() < 0.3] for _ in range(count)],
            }
        )

    splits = DatasetDict(train=rows(30, 0), validation=rows(40, 1), test=rows(20, 2))
    data = {"dataset": "none", "validation": "validation", "problem_type": MULTI}
    recipe = recipe_of(tmp_path, "bert", "full", "run", data=data).with_overrides("evaluation.thresholds=per_class")
    run = finetune(recipe, data=splits, precision="no")
    rule = Rule.of(run.model.config)
    assert len(rule.thresholds) == 3
    table = pd.read_parquet(run.path / "predictions.parquet")
    likely = np.stack(table["probabilities"])
    names = [run.model.config.id2label[place] for place in range(3)]
    given = [[name for name, p, cut in zip(names, row, rule.thresholds, strict=True) if p > cut] for row in likely]
    assert [list(each) for each in table["prediction"]] == given
    truth = np.array([[name in row for name in names] for row in table["label"]])
    decided = np.array([[name in row for name in names] for row in given])
    assert run.metrics["test"]["micro_f1"] == pytest.approx(f1_score(truth.ravel(), decided.ravel()))


def test_a_rule_without_anything_changes_nothing():
    logits, _ = honest(5)
    assert Rule().tempered(logits) is logits and Rule().decisive(logits) is logits
    assert Rule().written() == {} and replace(Rule(), temperature=2.0).written() == {"temperature": 2.0}
