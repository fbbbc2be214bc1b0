"""Intervals: what they are, that they hold what they promise, and that they are fast."""

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_finetune.evaluation import default_metrics, with_intervals
from hf_finetune.evaluation.intervals import resample_counts
from hf_finetune.recipes.metric_names import METRIC_NAMES

SINGLE, MULTI, REGRESSION = METRIC_NAMES
assert (SINGLE, MULTI, REGRESSION) == (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)


def draw(problem, seed, samples, classes=8):
    rng = np.random.default_rng(seed)
    if problem == SINGLE:
        labels = rng.integers(0, classes, samples)
        logits = rng.normal(size=(samples, classes)) + 2 * np.eye(classes)[labels]
    elif problem == MULTI:
        labels = (rng.random((samples, classes)) < 0.2).astype(float)
        logits = rng.normal(size=(samples, classes)) + 2 * labels - 1
    else:
        labels = rng.normal(size=(samples, 1))
        logits = labels + rng.normal(size=(samples, 1))
    return logits.astype(np.float32), labels


def test_resamples_draw_as_many_samples_and_every_sample_alike():
    counts = np.concatenate(list(resample_counts(200, 5000, seed=3)), axis=1)
    assert counts.shape == (200, 5000)
    assert (counts.sum(axis=0) == 200).all()
    assert np.allclose(counts.mean(axis=1), 1, atol=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 200, abs=0.01)


@pytest.mark.parametrize("problem", [SINGLE, MULTI, REGRESSION])
def test_values_equal_metrics_of_the_rows_drawn(problem):
    """The counts are only another way to write a resample: the statistic equals the metric of the repeated rows."""
    from hf_finetune.evaluation.metrics import compute_metrics, fit_shapes, statistics_of

    logits, labels = fit_shapes(*draw(problem, 0, 90), problem)
    names = METRIC_NAMES[problem]
    counts = next(resample_counts(90, 20, seed=1))
    found = {name: statistic(counts) for name, statistic in statistics_of(logits, labels, problem, names).items()}
    for place in range(20):
        rows = np.repeat(np.arange(90), counts[:, place].astype(int))
        expected = compute_metrics(logits[rows], labels[rows], problem, names)
        assert {name: values[place] for name, values in found.items()} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("problem", [SINGLE, MULTI, REGRESSION])
def test_every_metric_has_an_interval_around_it_and_the_seed_decides(problem):
    logits, labels = draw(problem, 0, 400)
    names = METRIC_NAMES[problem]
    first = with_intervals(logits, labels, problem, names, seed=5)
    for name in names:
        low, high = first[f"{name}_ci95"]
        assert low < first[name] < high
    assert first == with_intervals(logits, labels, problem, names, seed=5)
    assert first != with_intervals(logits, labels, problem, names, seed=6)
    assert set(with_intervals(logits, labels, problem, names, resamples=0)) == set(names)


def test_interval_of_accuracy_is_the_binomial_one():
    labels = np.zeros(2000, int)
    logits = np.tile([1.0, 0.0], (2000, 1))
    logits[:400] = [0.0, 1.0]
    low, high = with_intervals(logits, labels, SINGLE, ["accuracy"], resamples=4000)["accuracy_ci95"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.001), pytest.approx(0.8 + half, abs=0.001))


def test_a_perfect_score_stays_within_what_is_possible():
    logits, labels = 50 * np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])
    scores = with_intervals(logits, labels, SINGLE, ["accuracy", "macro_f1"])
    assert scores["accuracy_ci95"] == [1.0, 1.0] == scores["macro_f1_ci95"]


def test_many_small_classes_do_not_push_the_interval_off_its_value():
    """F1 of classes with few samples falls in every resample; the plain percentile interval lies wholly below it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 300, 3000)
    logits = rng.normal(size=(3000, 300)) + 3 * np.eye(300)[labels]
    scores = with_intervals(logits, labels, SINGLE, ["macro_f1", "ece"])
    for name in ("macro_f1", "ece"):
        assert scores[f"{name}_ci95"][0] < scores[name] < scores[f"{name}_ci95"][1]


def test_what_does_not_exist_has_no_interval_and_says_why(capsys):
    scores = with_intervals(np.arange(5.0)[:, None], np.ones(5), REGRESSION, ["mse", "r2"])
    assert scores["r2"] is None and scores["r2_ci95"] is None and scores["mse_ci95"] is not None
    assert "r2 has no value here: the target is the same" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("problem", [SINGLE, MULTI, REGRESSION])
def test_intervals_cover_the_truth_about_as_often_as_they_say(problem):
    """600 test sets of 300 samples; each share has a standard error of 0.01, and the band leaves three of them.

    Over 1,200 sets with 1,000 resamples every metric here held the truth in 93% to 95%. Two are left out: the ECE of
    a test set is biased upward by itself, and top-5 among six classes is so near 1 that many sets have no miss.
    """
    names = [name for name in METRIC_NAMES[problem] if name not in ("ece", "top5_accuracy")]
    logits, labels = draw(problem, 999, 400_000, classes=6)
    truth = with_intervals(logits, labels, problem, names, resamples=0)
    held = dict.fromkeys(names, 0)
    for place in range(600):
        rows = slice(300 * place, 300 * (place + 1))
        scores = with_intervals(logits[rows], labels[rows], problem, names, resamples=300, seed=place)
        for name in names:
            low, high = scores[f"{name}_ci95"]
            held[name] += low <= truth[name] <= high
    shares = {name: count / 600 for name, count in held.items()}
    assert all(0.90 <= share <= 0.98 for share in shares.values()), shares


@pytest.mark.parametrize(
    ("problem", "classes"), [(SINGLE, 10), (SINGLE, 1000), (MULTI, 20), (MULTI, 80), (REGRESSION, 1)]
)
@pytest.mark.slow
def test_ten_thousand_samples_take_seconds(problem, classes):
    logits, labels = draw(problem, 0, 10_000, classes)
    started = time.process_time()
    with_intervals(logits, labels, problem, default_metrics(problem, classes))
    assert time.process_time() - started < 8


def test_resampled_average_precision_is_sklearns():
    logits, labels = draw(MULTI, 4, 60, classes=3)
    from hf_finetune.evaluation.measures import mean_average_precision

    counts = next(resample_counts(60, 10, seed=0))
    found = mean_average_precision(logits, labels)(counts)
    for place in range(10):
        weights = counts[:, place]
        present = [c for c in range(3) if (weights * labels[:, c]).any()]
        expected = np.mean(
            [sk.average_precision_score(labels[:, c], logits[:, c], sample_weight=weights) for c in present]
        )
        assert found[place] == pytest.approx(expected)
