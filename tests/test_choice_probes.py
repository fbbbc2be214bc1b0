"""LogME, ridge, neighbours, curve, rank and noise: each against a slow and direct computation of what it says it is."""

import numpy as np
import pytest

from hf_finetune.choice.logme import columns_of, log_evidence
from hf_finetune.choice.probes import (
    effective_rank,
    extrapolated,
    learning_curve,
    neighbours,
    noisy_share,
    ridge,
    score_of,
    standardized,
)


def classes(rows=120, width=10, groups=3, apart=2.0, seed=0):
    """Features of well or badly separated classes, and the classes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % groups
    centres = apart * generator.normal(size=(groups, width))
    return centres[labels] + generator.normal(size=(rows, width)), labels


def direct_evidence(features, target):
    """The evidence of a Bayesian linear model as it is written down, at the fixed point of alpha and beta."""
    rows, width = features.shape
    alpha = beta = 1.0
    for _ in range(500):
        precision = alpha * np.eye(width) + beta * features.T @ features
        weights = beta * np.linalg.solve(precision, features.T @ target)
        eigenvalues = beta * np.linalg.eigvalsh(features.T @ features)
        known = (eigenvalues / (alpha + eigenvalues)).sum()
        misses = ((target - features @ weights) ** 2).sum()
        alpha, beta = known / (weights @ weights), (rows - known) / misses
    precision = alpha * np.eye(width) + beta * features.T @ features
    weights = beta * np.linalg.solve(precision, features.T @ target)
    misses = ((target - features @ weights) ** 2).sum()
    return (
        width / 2 * np.log(alpha)
        + rows / 2 * np.log(beta)
        - beta / 2 * misses
        - alpha / 2 * weights @ weights
        - np.linalg.slogdet(precision)[1] / 2
        - rows / 2 * np.log(2 * np.pi)
    ) / rows


@pytest.mark.parametrize("width", [4, 30])
def test_logme_is_the_evidence_of_a_bayesian_linear_model(width):
    features, labels = classes(width=width)
    slow = np.mean([direct_evidence(features, column) for column in columns_of(labels).T])
    assert log_evidence(features, labels) == pytest.approx(slow, abs=1e-4)
    numbers = features @ np.linspace(-1, 1, width) + np.random.default_rng(1).normal(size=len(features))
    assert log_evidence(features, numbers) == pytest.approx(direct_evidence(features, numbers), abs=1e-4)


def test_logme_prefers_features_that_tell_the_classes_apart():
    found = [log_evidence(*classes(apart=apart)) for apart in (0.0, 0.5, 2.0)]
    assert found == sorted(found)


def test_logme_takes_more_columns_than_rows_and_a_constant_target():
    features, labels = classes(rows=20, width=50)
    assert np.isfinite(log_evidence(features, labels))
    assert np.isfinite(log_evidence(features, np.zeros(20, dtype=int)))
    with pytest.raises(ValueError, match="at least one row"):
        log_evidence(features[:0], labels[:0])


def test_ridge_answers_each_row_as_a_fit_without_it_does():
    features, labels = classes(rows=40, width=6, apart=0.7)
    standard = standardized(features)
    probe, wanted = ridge(standard, labels), columns_of(labels)
    weight = probe.strength * (np.linalg.svd(standard, compute_uv=False) ** 2).mean()
    for row in (0, 7, 39):
        others = np.delete(np.arange(40), row)
        x, y = standard[others], wanted[others]
        centre, mean = x.mean(axis=0), y.mean(axis=0)
        solved = np.linalg.solve((x - centre).T @ (x - centre) + weight * np.eye(6), (x - centre).T @ (y - mean))
        assert probe.answers[row] == pytest.approx((standard[row] - centre) @ solved + mean, abs=1e-8)


def test_ridge_does_not_score_what_it_has_learnt_by_heart():
    """As many columns as rows and labels of chance: a fit on all rows would be perfect."""
    generator = np.random.default_rng(0)
    features = standardized(generator.normal(size=(200, 300)))
    assert ridge(features, generator.integers(0, 2, 200)).score == pytest.approx(0.5, abs=0.12)


def test_scores_of_sets_of_classes_and_of_numbers():
    sets = np.array([[True, False], [True, True], [False, True]])
    assert score_of(sets, sets) == 1.0
    assert score_of(np.zeros((3, 2)), sets) == 0.0
    assert score_of(np.ones((3, 1)), sets[:, :1]) == pytest.approx(0.8)  # F1 of one class: it is right in two of three
    assert score_of(np.full((3, 2), 2 / 3), sets.astype(float)) == pytest.approx(0.0)  # numbers that are 0 and 1: R2
    numbers = np.array([1.0, 2.0, 3.0])
    assert score_of(numbers[:, None], numbers) == 1.0
    assert score_of(np.full((3, 1), 2.0), numbers) == 0.0
    features, _ = classes(apart=0.0)
    assert ridge(standardized(features), features[:, 0] - features[:, 1]).score > 0.99


def test_neighbours_leave_the_row_itself_out():
    features, labels = classes(apart=3.0)
    assert neighbours(standardized(features), labels) > 0.95
    generator = np.random.default_rng(0)
    noise = standardized(generator.normal(size=(300, 5)))
    assert neighbours(noise, generator.integers(0, 2, 300)) < 0.65


def test_the_learning_curve_rises_and_goes_on():
    features, labels = classes(rows=400, width=40, apart=0.35)
    probe = ridge(standardized(features), labels)
    curve = learning_curve(standardized(features), labels, probe.strength, seed=0)
    assert [rows for rows, _ in curve] == [50, 100, 200]
    assert curve[0][1] < curve[-1][1]
    later = extrapolated([*curve, (400, probe.score)], 4000)
    assert probe.score < later < 1
    assert extrapolated(curve, 100) == curve[-1][1]  # rows that it has seen already


def test_a_power_law_is_gone_on_with():
    law = [(rows, 1 - 2 * rows**-0.5) for rows in (100, 200, 400)]
    assert extrapolated(law, 6400) == pytest.approx(1 - 2 * 6400**-0.5, abs=1e-6)
    assert extrapolated([(100, 0.8), (200, 0.7)], 10_000) == 0.7  # a curve that falls promises nothing


def test_effective_rank_of_isotropic_and_of_flat_features():
    generator = np.random.default_rng(0)
    round_ones = generator.normal(size=(2000, 8))
    assert effective_rank(round_ones) == pytest.approx(1, abs=0.02)
    flat = np.outer(generator.normal(size=100), np.ones(8)) + 1e-6 * generator.normal(size=(100, 8))
    assert effective_rank(flat) == pytest.approx(1 / 8, abs=0.01)
    assert effective_rank(np.ones((5, 3))) == 0.0


def test_wrong_labels_are_counted():
    features, labels = classes(rows=300, width=8, apart=2.0)
    wrong = labels.copy()
    wrong[:30] = (wrong[:30] + 1) % 3
    clean, noisy = (noisy_share(ridge(standardized(features), given).answers, given) for given in (labels, wrong))
    assert clean < 0.02
    assert noisy == pytest.approx(0.1, abs=0.03)


def test_wrong_labels_are_counted_as_cleanlab_does():
    count = pytest.importorskip("cleanlab.count", reason="needs cleanlab")
    features, labels = classes(rows=400, width=8, apart=1.0)
    labels[:60] = (labels[:60] + 1) % 3
    answers = ridge(standardized(features), labels).answers
    from hf_finetune.choice.probes import _calibrated

    theirs = count.num_label_issues(labels, _calibrated(answers, labels), estimation_method="off_diagonal")
    assert noisy_share(answers, labels) * 400 == pytest.approx(theirs, abs=2)
