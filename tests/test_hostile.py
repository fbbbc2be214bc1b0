"""Nothing that a stranger made runs, hangs, takes the memory or shows a traceback: the corpus of `tests/faults/`."""

import datasets
import pytest
from faults.hostile import Case, attack, corpus, verdict

# Gigabytes are unpacked, to nowhere, until there are too many.
SLOW = ("of 2 GB",)


def cases() -> list:
    return [pytest.param(case, marks=pytest.mark.slow) if case.name.endswith(SLOW) else case for case in corpus()]


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.mark.parametrize("case", cases(), ids=repr)
def test_a_stranger_gets_nowhere(case: Case, tmp_path):
    assert verdict(case, tmp_path, attack(case, tmp_path)) is None


def test_the_corpus_is_as_large_as_it_says():
    names = [case.name for case in corpus()]
    assert len(names) == len(set(names)) >= 60
