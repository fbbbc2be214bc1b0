"""Metrics are scikit-learn's and scipy's, and what does not exist is said not to exist."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from hf_finetune.errors import UserError
from hf_finetune.evaluation import (
    METRICS,
    check_metrics,
    compute_metrics,
    default_metrics,
    greater_is_better,
    predictions,
    probabilities,
)
from hf_finetune.recipes.metric_names import METRIC_NAMES

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
pytestmark = pytest.mark.filterwarnings("error")


def single(seed, samples, classes, decimals=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, classes)).astype(np.float32)
    logits[np.arange(samples), labels] += 1
    return (logits if decimals is None else logits.round(decimals)), labels


def reference_single(logits, labels):
    likely = np.exp(logits.astype(float) - np.logaddexp.reduce(logits.astype(float), axis=1, keepdims=True))
    decided, everything = likely.argmax(1), np.arange(logits.shape[1])
    present = np.unique(np.concatenate([labels, decided]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn's, of predicted classes that are not in the labels
        return {
            "accuracy": sk.accuracy_score(labels, decided),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, decided),
            "macro_f1": sk.f1_score(labels, decided, labels=present, average="macro"),
            "micro_f1": sk.f1_score(labels, decided, average="micro"),
            "top5_accuracy": sk.top_k_accuracy_score(labels, logits, k=5, labels=everything),
            "log_loss": sk.log_loss(labels, likely, labels=everything),
        }


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), samples=st.integers(2, 80), classes=st.integers(6, 12), ties=st.booleans())
def test_single_label_metrics_equal_sklearn(seed, samples, classes, ties):
    logits, labels = single(seed, samples, classes, 0 if ties else None)
    expected = reference_single(logits, labels)
    assert compute_metrics(logits, labels, SINGLE, list(expected)) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), samples=st.integers(1, 60), classes=st.integers(1, 8), ties=st.booleans())
def test_multi_label_metrics_equal_sklearn(seed, samples, classes, ties):
    rng = np.random.default_rng(seed)
    labels = (rng.random((samples, classes)) < 0.3).astype(float)
    labels[0, 0] = 1
    logits = (rng.normal(size=(samples, classes)) + labels).round(0 if ties else 6).astype(np.float32)
    decided, occurs = (logits > 0).astype(int), labels.any(axis=0)
    expected = {
        "accuracy": (decided == labels).all(axis=1).mean(),
        "micro_f1": sk.f1_score(labels.ravel().astype(int), decided.ravel()),
        "macro_f1": np.nanmean(
            [sk.f1_score(labels[:, c].astype(int), decided[:, c], zero_division=np.nan) for c in range(classes)]
        ),
        "mean_average_precision": np.mean(
            [sk.average_precision_score(labels[:, c], logits[:, c]) for c in np.flatnonzero(occurs)]
        ),
    }
    assert compute_metrics(logits, labels, MULTI, list(expected)) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    samples=st.integers(3, 60),
    targets=st.integers(1, 3),
    offset=st.sampled_from([0.0, 1e4, -1e6]),
    ties=st.booleans(),
)
def test_regression_metrics_equal_sklearn_and_scipy(seed, samples, targets, offset, ties):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(samples, targets)).round(1 if ties else 8)
    labels[0], labels[1] = -2, 2
    values = labels + rng.normal(size=(samples, targets)).round(1 if ties else 8)
    values[0] -= 1
    labels, values = labels + offset, values + offset
    each = range(targets)
    expected = {
        "mse": sk.mean_squared_error(labels, values),
        "mae": sk.mean_absolute_error(labels, values),
        "r2": sk.r2_score(labels, values),
        "pearson": np.mean([stats.pearsonr(labels[:, t], values[:, t])[0] for t in each]),
        "spearman": np.mean([stats.spearmanr(labels[:, t], values[:, t])[0] for t in each]),
    }
    assert compute_metrics(values, labels, REGRESSION, list(expected)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_regression_takes_one_output_and_flat_labels():
    values, labels = np.array([[1.0], [2.0], [4.0]], dtype=np.float32), np.array([1.0, 2.0, 3.0])
    assert compute_metrics(values, labels, REGRESSION, ["mse"])["mse"] == pytest.approx(1 / 3)
    assert compute_metrics(values[:, 0], labels, REGRESSION, ["mae"])["mae"] == pytest.approx(1 / 3)


def test_ece_is_guos_definition():
    logits, labels = single(0, 3000, 4)
    likely = probabilities(logits, SINGLE).astype(float)
    sure, right = likely.max(1), likely.argmax(1) == labels
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert compute_metrics(logits, labels, SINGLE, ["ece"])["ece"] == pytest.approx(expected, abs=1e-6)
    certain = np.where(np.eye(3)[[0, 1, 2, 0]] > 0, 100.0, -100.0)
    assert compute_metrics(certain, np.array([0, 1, 2, 1]), SINGLE, ["ece"])["ece"] == pytest.approx(0.25)


def test_extreme_logits_neither_overflow_nor_clip():
    logits = np.array([[3e4, -3e4], [3e4, -3e4]], dtype=np.float32)
    values = compute_metrics(logits, np.array([0, 1]), SINGLE, ["log_loss", "accuracy"])
    assert values == {"log_loss": pytest.approx(3e4), "accuracy": 0.5}
    assert probabilities(np.array([[1e4, -1e4]]), MULTI).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("problem", "logits", "labels", "name"),
    [
        (REGRESSION, [[1.0], [2.0], [3.0]], [5.1, 5.1, 5.1], "r2"),
        (REGRESSION, [[1.0], [2.0], [3.0]], [5.1, 5.1, 5.1], "pearson"),
        (REGRESSION, [[0.3], [0.3], [0.3]], [1.0, 2.0, 3.0], "spearman"),
        (REGRESSION, [[0.3]], [1.0], "r2"),
        (MULTI, [[1.0, 2.0]], [[0, 0]], "mean_average_precision"),
        (MULTI, [[-1.0, -2.0]], [[0, 0]], "micro_f1"),
        (MULTI, [[-1.0, -2.0]], [[0, 0]], "macro_f1"),
    ],
)
def test_what_does_not_exist_is_nan_not_zero(problem, logits, labels, name):
    assert np.isnan(compute_metrics(np.array(logits), np.array(labels), problem, [name])[name])


def test_average_precision_leaves_out_classes_that_do_not_occur():
    logits, labels = np.array([[2.0, 1.0], [1.0, 3.0], [0.5, 0.0]]), np.array([[0, 0], [1, 0], [0, 0]])
    assert compute_metrics(logits, labels, MULTI, ["mean_average_precision"])["mean_average_precision"] == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("problem", [SINGLE, MULTI, REGRESSION])
def test_a_diverged_model_has_no_score(problem, bad):
    logits = np.ones((4, 6))
    logits[2, 1] = bad
    labels = np.array([0, 1, 2, 3]) if problem == SINGLE else np.eye(4, 6)
    assert all(np.isnan(v) for v in compute_metrics(logits, labels, problem, METRIC_NAMES[problem]).values())


def test_defaults_exist_and_top5_needs_six_classes():
    assert {problem: tuple(known) for problem, known in METRICS.items()} == METRIC_NAMES
    assert "top5_accuracy" in default_metrics(SINGLE, 6) and "top5_accuracy" not in default_metrics(SINGLE, 5)
    assert default_metrics(SINGLE, 2)[0] == "accuracy"
    with pytest.raises(UserError, match="always 1"):
        compute_metrics(np.zeros((3, 5)), np.zeros(3, int), SINGLE, ["top5_accuracy"])


def test_which_way_is_better():
    lower = {name for names in METRIC_NAMES.values() for name in names if not greater_is_better(name)}
    assert lower == {"log_loss", "ece", "mse", "mae"}
    assert not greater_is_better("eval_loss") and greater_is_better("eval_accuracy")


def test_complaints_name_the_nearest_and_the_known():
    (complaint,) = check_metrics(["acuracy", "macro_f1"], SINGLE)
    assert "'accuracy'" in complaint and "balanced_accuracy" in complaint
    (complaint,) = check_metrics(["accuracy"], REGRESSION)
    assert "regression" in complaint and "pearson" in complaint
    (complaint,) = check_metrics(["evaluate:mcc"], SINGLE)
    assert "--trust-remote-code" in complaint
    assert check_metrics(["evaluate:mcc"], SINGLE, trust_remote_code=True) == []


@pytest.mark.parametrize(
    ("problem", "logits", "labels"),
    [
        (SINGLE, np.zeros((0, 3)), np.zeros(0, int)),
        (SINGLE, np.zeros((2, 3)), np.array([0, 3])),
        (SINGLE, np.zeros((2, 3)), np.array([-1, 0])),
        (SINGLE, np.zeros((2, 3)), np.zeros((2, 3))),
        (MULTI, np.zeros((2, 3)), np.zeros((2, 2))),
        (REGRESSION, np.zeros((2, 3)), np.zeros(2)),
    ],
)
def test_shapes_that_do_not_fit_are_told(problem, logits, labels):
    with pytest.raises(UserError, match=r"shape \("):
        compute_metrics(logits, labels, problem, METRIC_NAMES[problem][:1])


def test_predictions_of_each_problem():
    assert predictions(np.array([[0.1, 0.9], [2.0, 1.0]]), SINGLE).tolist() == [1, 0]
    assert predictions(np.array([[0.1, -0.9], [0.0, 1.0]]), MULTI).tolist() == [[1, 0], [0, 1]]
    assert predictions(np.array([[0.5], [1.5]]), REGRESSION).tolist() == [0.5, 1.5]
    assert predictions(np.ones((2, 3)), REGRESSION).shape == (2, 3)


METRIC_SCRIPT = """
import datasets
import evaluate


class Agreement(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="d", citation="c", inputs_description="i", features=features)

    def _compute(self, predictions, references):
        pairs = list(zip(predictions, references))
        return {"agreement": sum(p == r for p, r in pairs) / len(pairs)}
"""


@pytest.fixture
def local_metric(tmp_path, monkeypatch):
    folder = tmp_path / "agreement"
    folder.mkdir()
    (folder / "agreement.py").write_text(METRIC_SCRIPT)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return f"evaluate:{folder}"


@pytest.mark.filterwarnings("default")
def test_a_metric_of_evaluate_runs_only_when_trusted(local_metric):
    logits, labels = single(0, 50, 4)
    with pytest.raises(UserError, match="trust"):
        compute_metrics(logits, labels, SINGLE, [local_metric])
    values = compute_metrics(logits, labels, SINGLE, [local_metric, "accuracy"], trust_remote_code=True)
    assert values[local_metric] == values["accuracy"]


@pytest.mark.filterwarnings("default")
def test_a_metric_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        compute_metrics(
            np.zeros((3, 2)), np.zeros(3, int), SINGLE, [f"evaluate:{tmp_path / 'nothing'}"], trust_remote_code=True
        )


@pytest.mark.filterwarnings("default")
def test_our_metrics_combine_as_evaluate_metrics(tmp_path, monkeypatch):
    import evaluate

    from hf_finetune.evaluation import FinetuneMetric

    monkeypatch.chdir(tmp_path)
    logits, labels = single(0, 50, 4)
    names = ["accuracy", "ece", "macro_f1"]
    both = evaluate.combine([FinetuneMetric(name, cache_dir=str(tmp_path)) for name in names])
    expected = compute_metrics(logits, labels, SINGLE, names)
    assert both.compute(predictions=logits, references=labels) == pytest.approx(expected)
    values, targets = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    mse = FinetuneMetric("mse", REGRESSION, cache_dir=str(tmp_path))
    assert mse.compute(predictions=values, references=targets)["mse"] == pytest.approx(((values - 1) ** 2).mean())
    with pytest.raises(UserError, match="Known"):
        FinetuneMetric("mse")
