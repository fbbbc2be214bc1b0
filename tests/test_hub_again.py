"""A published run made again: what a stranger wrote is checked before training, and what was compared is said."""

from pathlib import Path

import pytest

from hf_finetune.cli import main
from hf_finetune.errors import UserError
from hf_finetune.publish.reproduced import Published, compare

PUBLISHED = {"test": {"accuracy": 0.9, "accuracy_ci95": [0.8, 1.0], "samples": 10}}


@pytest.mark.parametrize(
    "wrong", ["high", [0.1], [0.1, "x"], [float("nan"), 1.0], [1.0, 0.5], 3, [0, 10**400], [True, 1]]
)
def test_an_interval_that_is_none_is_told_before_training(wrong):
    theirs = {"test": PUBLISHED["test"] | {"accuracy_ci95": wrong}}
    with pytest.raises(UserError, match=r"a/b: accuracy_ci95 .* must be two finite numbers"):
        _ = Published("a/b", "c" * 40, theirs).judged
    other = {"test": {"r2_ci95": [None, None], "r2": None} | PUBLISHED["test"]}  # undefined, as we write it
    assert Published("a/b", "c" * 40, other).judged == "accuracy"


def test_a_run_that_was_there_already_is_said_to_be():
    published = Published("a/b", "c" * 40, PUBLISHED)
    fresh, old = (compare(published, {"test": {"accuracy": 0.85}}, already) for already in (None, Path("runs/x")))
    assert fresh.inside and old.inside and "already there" not in fresh.words
    assert "Compared with the run already there, runs/x: nothing was trained now" in old.words


def test_every_owner_and_commit_has_a_folder_of_its_own(monkeypatch):
    given = []

    def stop(where, pairs):
        given.append(pairs[0])
        raise UserError("seen")

    monkeypatch.setattr("hf_finetune.publish.reproduced.resolve", stop)
    for repo, commit in (("a/x", "c" * 40), ("b/x", "c" * 40), ("a/x", "d" * 40), ("x", "d" * 40)):
        with pytest.raises(UserError, match="seen"):
            Published(repo, commit, PUBLISHED).recipe([])
    assert given[0] == "output_dir=runs/a--x-cccccccccccc-reproduced" and len(set(given)) == 4


def test_a_crash_of_reproduce_is_no_other_score(monkeypatch, capsys):
    def crash(where):
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("hf_finetune.publish.reproduced.find_published", crash)
    assert main(["reproduce", "a/b"]) == 2
    told = capsys.readouterr().err
    assert told.rstrip().endswith("reproduce a/b: it could not be tried: ZeroDivisionError: deep inside")
