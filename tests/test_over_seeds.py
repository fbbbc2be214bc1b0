"""Scores over seeds and rows, paired tests and their correction: right on cases whose answer is known."""

import numpy as np
import pytest
from scipy.stats import t

from hf_finetune.evaluation.intervals import wilson
from hf_finetune.evaluation.over_seeds import resampled, spread
from hf_finetune.evaluation.paired import BOOTSTRAP, MCNEMAR, OVER_SEEDS, UNPAIRED, difference, holm, mcnemar
from hf_finetune.evaluation.statistic import mean_of


def rows_of(right, resamples=400, seed=0):
    """Accuracies (S, B) of runs that are right or wrong, (S, N)."""
    return resampled([mean_of(one) for one in right], right.shape[1], resamples, seed)


def test_seeds_that_agree_leave_the_chance_of_the_rows_alone():
    right = np.tile(np.arange(100) < 90, (5, 1))
    told = spread([0.9] * 5, rows_of(right, 4000), 100)
    assert told.std == 0
    assert told.variance == pytest.approx(0.9 * 0.1 / 100, rel=0.1)  # five equal seeds are not five times the rows
    assert told.freedom == pytest.approx(99)


def test_two_seeds_without_rows_know_little():
    told = spread([0.8, 0.9], None, 0)
    assert (told.mean, told.freedom) == (pytest.approx(0.85), 1)
    low, high = told.interval(0.0, 1.0)
    assert low == pytest.approx(0.85 - t.ppf(0.975, 1) * 0.05)  # 12.7 times their standard error
    assert high == 1.0  # no share is above 1


def test_one_seed_has_the_rows_interval_and_no_spread():
    right = np.arange(200)[None] < 150
    told = spread([0.75], rows_of(right, 2000), 200)
    assert told.std is None
    low, high = told.interval()
    assert (low, high) == (pytest.approx(0.69, abs=0.01), pytest.approx(0.81, abs=0.01))
    assert spread([0.75], None, 0).interval() is None


@pytest.mark.parametrize(("seeds", "of_items", "of_seeds"), [(3, 3.0, 0.3), (5, 2.0, 0.0), (5, 3.0, 1.0)])
def test_the_interval_holds_the_true_score_of_other_seeds_and_other_rows(seeds, of_items, of_seeds):
    rng = np.random.default_rng(0)
    many = rng.standard_normal((2, 200_000))
    truth = float((1 / (1 + np.exp(-(2.0 + of_items * many[0] + of_seeds * many[1])))).mean())
    held = 0
    for place in range(150):
        chance = 2.0 + of_items * rng.standard_normal((1, 100)) + of_seeds * rng.standard_normal((seeds, 1))
        right = rng.random((seeds, 100)) < 1 / (1 + np.exp(-chance))
        low, high = spread(right.mean(axis=1), rows_of(right, 100, place), 100).interval()
        held += low <= truth <= high
    assert held >= 0.88 * 150


@pytest.mark.parametrize(("seeds", "rows", "share"), [(2, 60, 0.99), (5, 60, 0.99), (2, 150, 0.998)])
def test_near_one_the_interval_holds_the_true_share_too(seeds, rows, share):
    """Where most draws have no miss at all a bootstrap has nothing to resample: it held 19% to 85% of these."""
    rng, held, narrow = np.random.default_rng(3), 0, 0
    for place in range(120):
        hard = rng.random(rows) < 2 * (1 - share)  # which each seed then misses half of the time
        right = ~hard | (rng.random((seeds, rows)) < 0.5)
        told = spread(right.mean(axis=1), rows_of(right, 50, place), rows, share=True)
        low, high = told.interval(0.0, 1.0)
        held += low <= share <= high
        narrow += high - low < 0.005
    assert held >= 0.93 * 120 and narrow == 0


def test_one_seed_has_wilsons_interval_as_a_run_has():
    right = np.arange(200)[None] < 190
    low, high = spread([0.95], rows_of(right, 4000), 200, share=True).interval()
    assert [low, high] == pytest.approx(wilson(0.95, 200), abs=0.002)
    assert spread([1.0, 1.0], None, 40, of_rows=0.0, share=True).interval() == pytest.approx(wilson(1, 40), abs=6e-3)


def test_two_that_are_always_right_may_differ_on_other_rows():
    right = np.ones((4, 60), bool)
    drawn = rows_of(right)
    told = difference([1.0, 1.0], [1.0, 1.0], drawn[:2], drawn[2:], 60, share=True)
    assert told.p == 1.0 and told.ci95[0] == -told.ci95[1] < -0.02
    lone = difference([1.0], [1.0], drawn[:1], drawn[1:2], 60, (right[0], right[1]), share=True)
    half = 1.959964 / 62  # of Agresti and Min, where no answer differs: one row of 62 has a square of 1
    assert lone.ci95 == pytest.approx([-half, half], rel=0.03)


def test_without_the_rows_answers_a_few_rows_make_nothing_real():
    """Seeds that agree on eight validation rows, which a test over the seeds alone calls certain (p = 0)."""
    told = difference([0.5, 0.5], [0.375, 0.375], None, None, 8, share=True)
    assert told.method == UNPAIRED and told.p > 0.5 and told.ci95[0] < -0.3 < 0.3 < told.ci95[1]
    assert difference([0.9, 0.9], [0.1, 0.1], None, None, 200, share=True).p < 1e-6
    other = difference([0.9, 0.8], [0.7, 0.7], None, None, 200)
    assert other.p is None and other.ci95 is None


def test_mcnemar_looks_at_the_rows_on_which_two_differ():
    first, second = np.ones(100, bool), np.ones(100, bool)
    second[:10] = False
    first[10:12] = False
    assert mcnemar(first, second) == pytest.approx(0.03857, abs=1e-4)  # of 12 coins, 10 or more heads or tails
    assert mcnemar(first, first) == 1.0


def test_a_difference_of_one_seed_is_mcnemars_or_the_bootstraps():
    right = np.stack([np.arange(300) < 270, np.arange(300) < 240])
    one, other = rows_of(right, 500)[:, None]
    told = difference([0.9], [0.8], one, other, 300, (right[0], right[1]))
    assert (told.method, told.value) == (MCNEMAR, pytest.approx(0.1))
    assert told.p < 1e-6 and told.ci95[0] > 0.05
    drawn = difference([0.9], [0.8], one, other, 300)
    assert drawn.method == BOOTSTRAP and drawn.p == pytest.approx(1 / 501)
    back = difference([0.8], [0.9], other, one, 300)
    assert back.p == drawn.p and back.ci95 == [-drawn.ci95[1], -drawn.ci95[0]]
    same = difference([0.9], [0.9], one, one, 300)
    assert same.p == 1.0 and same.ci95 == [0.0, 0.0]


def test_rows_in_common_make_a_difference_surer_than_the_scores():
    """Both miss the same hard rows: the intervals of the scores overlap, the difference is real."""
    rng = np.random.default_rng(1)
    hard = rng.random(400) < 0.3
    first = np.stack([~hard | (rng.random(400) < 0.1) for _ in range(3)])
    second = first & (rng.random((3, 400)) > 0.05)
    values = [one.mean(axis=1) for one in (first, second)]
    drawn = [rows_of(one) for one in (first, second)]
    each = [spread(value, rows, 400).interval() for value, rows in zip(values, drawn, strict=True)]
    told = difference(*values, *drawn, 400)
    assert each[0][0] < each[1][1]
    assert told.method == OVER_SEEDS and told.p < 0.05 and told.ci95[0] > 0


def test_without_a_difference_the_p_is_uniform_enough():
    rng, found = np.random.default_rng(2), []
    for place in range(150):
        base = rng.random((1, 120)) < 0.8
        right = base ^ (rng.random((6, 120)) < 0.1)
        drawn = rows_of(right, 100, place)
        found.append(difference(right[:3].mean(1), right[3:].mean(1), drawn[:3], drawn[3:], 120).p)
    assert np.mean(np.array(found) < 0.05) <= 0.08


def test_holm_corrects_for_all_and_leaves_out_what_is_unknown():
    assert holm([0.01, 0.04, 0.03, None]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
