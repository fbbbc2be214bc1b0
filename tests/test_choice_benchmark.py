"""The benchmark of the advice: what it fits and what it counts, on made-up results; and its grid."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from hf_finetune.choice.forecast import Facts, forecast

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def lines(gain, problems=("cifar10", "fashion", "sst2", "ag_news", "mrpc", "digits"), sizes=(100, 500)):
    """Results in which full beats the probe by a gain that grows with the rows, and head equals it."""
    found = []
    for number, problem in enumerate(problems):
        for size in sizes:
            probe = 0.5 + 0.05 * number
            cell = {"problem": problem, "size": size, "checkpoint": "c", "seed": 0}
            measures = {"depths": [{"evidence": probe}]}
            facts = {"probe": probe, "size": size, "middle": 0.0, "spread": 0.4, "text": False}
            costs = {"head": 1.0, "lora": 8.0, "full": 10.0}
            advice = {"facts": facts, "measures": measures, "costs": costs, "seconds": 1.0, "full_seconds": 20.0}
            found.append({**cell, "what": "advice", **advice})
            scores = {"head": probe, "lora": probe - 0.02, "full": probe + (gain if size == 500 else -gain)}
            found += [{**cell, "what": kind, "accuracy": score, "seconds": 1.0} for kind, score in scores.items()]
    return found


def test_it_learns_that_more_rows_make_full_the_best():
    from advice_fit import advised, choices, regret, scored, unseen

    cells = scored(lines(0.1))
    assert len(cells) == 12
    for cell, guess in zip(cells, unseen(cells), strict=True):
        assert advised(cell, guess) == ("full" if cell.size == 500 else "head")
    taken = choices(cells).items()
    lost = {rule: [regret(cell, kind) for cell, kind in zip(cells, kinds, strict=True)] for rule, kinds in taken}
    assert np.mean(lost["the advice"]) == pytest.approx(0, abs=1e-9)
    assert np.mean(lost["size alone"]) == pytest.approx(0, abs=1e-9)
    assert np.mean(lost["always full"]) == pytest.approx(0.05)
    assert np.mean(lost["always head"]) == pytest.approx(0.05)


def test_regret_without_luck_is_zero_where_strategies_are_equally_good():
    """And keeps a difference that there is."""
    from advice_fit import fair_regret, regret, scored

    generator = np.random.default_rng(0)
    (cell, *_) = scored(lines(0.0))
    kinds = ("head", "lora", "full", "lp_ft", "freeze")

    def drawn(share):
        right = {kind: generator.random(1_000) < share.get(kind, 0.7) for kind in kinds}
        return cell._replace(right=right, scores={kind: bits.mean() for kind, bits in right.items()})

    equal = [drawn({}) for _ in range(200)]
    assert np.mean([regret(each, "full") for each in equal]) > 0.01
    assert np.mean([fair_regret(each, "full") for each in equal]) == pytest.approx(0, abs=0.003)
    worse = [drawn({"full": 0.6}) for _ in range(200)]
    assert np.mean([fair_regret(each, "full") for each in worse]) == pytest.approx(0.1, abs=0.005)
    assert np.isnan(fair_regret(cell, "full"))


def test_the_best_strategy_of_a_cell_is_that_of_all_its_draws():
    """In each of two draws another strategy is lucky; the best one is best on average."""
    from advice_fit import merged, regrets, scored

    (cell, other, *_) = scored(lines(0.0))
    draws = [
        cell._replace(scores={"head": 0.7, "full": 0.6, "lora": 0.65}),
        cell._replace(scores={"head": 0.5, "full": 0.8, "lora": 0.75}),
        other._replace(scores={"head": 0.4, "full": 0.5, "BiT": 0.9}),
    ]
    assert next(each.scores for each in merged(draws)) == pytest.approx({"head": 0.6, "full": 0.7, "lora": 0.7})
    assert regrets(draws, ["full", "lora", "full"]) == pytest.approx([0.7 - 0.675, 0.0])
    assert regrets(draws, ["head", "full", "head"]) == pytest.approx([0.7 - 0.75, 0.1])


def test_a_problem_is_foretold_without_its_own_source(monkeypatch):
    """All of CIFAR-10's problems are left out together."""
    import advice_fit

    seen = []
    fitted = advice_fit.regression
    monkeypatch.setattr(advice_fit, "regression", lambda cells: seen.append({c.source for c in cells}) or fitted(cells))
    advice_fit.unseen(advice_fit.scored(lines(0.1, ("cifar10", "cifar vehicles", "fashion", "sst2"))))
    assert seen == [{"fashion", "sst2"}, {"cifar10", "sst2"}, {"cifar10", "fashion"}]


def test_the_fit_is_what_the_package_reads(monkeypatch, tmp_path):
    import advice_fit

    monkeypatch.setattr(advice_fit, "ASSET", tmp_path / "advice.json")
    said = advice_fit.fit(lines(0.1))
    model = json.loads((tmp_path / "advice.json").read_text())
    assert "12 cells of 6 problems with 100, 500 labelled rows" in said
    few, many = (forecast("full", Facts(0.7, size, 0.0, 0.4, False), model) for size in (100, 500))
    assert few.score < 0.68 < 0.72 < many.score
    assert few.low < few.score < few.high
    assert "| the advice | 0.00 |" in advice_fit.table(lines(0.1))


def test_the_grid_is_the_issues():
    from advice import KINDS, cells
    from advice_problems import PROBLEMS, SIZES

    options = argparse.Namespace(checkpoints="", sizes=",".join(map(str, SIZES)), problems=",".join(PROBLEMS), seeds=1)
    found = list(cells(options))
    assert len({cell.problem for cell in found}) >= 10
    assert {cell.size for cell in found} == {100, 500, 2000, 5000}
    assert len({cell.checkpoint for cell in found if cell.problem == "cifar10"}) == 3
    assert len(KINDS) == 7


@pytest.mark.real
@pytest.mark.slow
def test_problems_are_made_from_the_data_of_the_home():
    from advice_problems import PROBLEMS, rows_of

    rows = rows_of(PROBLEMS["ag_news two"])
    assert rows["train"].features["label"].names == ["Business", "Sci/Tech"]
    assert set(rows["train"]["label"]) == {0, 1}
    assert len(rows["test"]) == 1_000
