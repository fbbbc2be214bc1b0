"""Bad data comes to a message that names the rows, or to its documented handling (tests/faults/bad_*.py).

Plain: some of the cases that are refused before training. `slow`: all of them, those that train, and, in a process of
limited memory, the large ones.
"""

from collections import Counter

import datasets
import pytest
from data_samples import private_cache  # noqa: F401
from faults.bad_case import checkpoints, recipe_of, run
from faults.bad_data import CASES, measured

from hf_finetune.advice import examine
from hf_finetune.console import inert
from hf_finetune.errors import UserError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return checkpoints(tmp_path_factory.mktemp("models"))


def small(finishing):
    return [case for case in CASES if not case.heavy and case.finishes is finishing]


def some_slow(cases):
    return [case if place % 6 == 0 else pytest.param(case, marks=pytest.mark.slow) for place, case in enumerate(cases)]


def named(case):
    return case.name.replace(" ", "-")


@pytest.fixture
def came_out(tmp_path, models):
    def as_documented(case):
        outcome = run(case, tmp_path / "case", models)
        assert not outcome.faults, f"{outcome.faults}\n{outcome.said}"

    return as_documented


@pytest.mark.parametrize("case", some_slow(small(finishing=False)), ids=named)
def test_bad_data_is_refused_with_its_rows_before_training(case, came_out):
    came_out(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", small(finishing=True), ids=named)
def test_bad_data_is_handled_as_documented(case, came_out):
    came_out(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if not case.heavy], ids=named)
def test_the_doctor_tells_what_it_finds_or_why_it_cannot_look(case, tmp_path, models):
    given = case.make(make_folder(tmp_path))
    recipe = recipe_of(case, given, models, tmp_path / "run")
    try:
        words = examine(recipe, data=given.get("source")).in_words()
    except UserError as error:
        words = str(error)
    assert words and inert(words)


def make_folder(folder):
    (folder / "data").mkdir()
    return folder / "data"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_large_bad_data_stays_within_memory_and_time(tmp_path):
    outcomes = list(measured([case for case in CASES if case.heavy], tmp_path))
    assert not [(outcome.case, outcome.faults) for outcome in outcomes if outcome.faults]
    assert all(0 < outcome.mib < 4096 for outcome in outcomes)


def test_the_corpus_is_as_large_as_it_says():
    assert len(CASES) >= 120
    assert max(Counter(case.name for case in CASES).values()) == 1
    assert all(case.refused or case.says for case in CASES), "a case without an expectation proves nothing"
    assert datasets.config.HF_HUB_OFFLINE
