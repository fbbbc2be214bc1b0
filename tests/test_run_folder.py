"""A run's folder: never two runs in it, and what is told where a run goes on."""

from __future__ import annotations

import pytest
from cache_samples import recipe_of
from pydantic import ValidationError

from hf_finetune.errors import UserError
from hf_finetune.training.checkpoints import SEAL
from hf_finetune.training.folder import RunFolder
from hf_finetune.training.same_run import compare

FACTS = {"data": "d", "frozen": "f", "processes": 1, "precision": "no", "products": "MKL", "attention": "fused"}
FLIPS = {"dataset": "none", "validation": "validation", "augment": {"flip": 0.5}}


@pytest.fixture
def folders(tmp_path):
    """Three of one recipe."""
    recipe = recipe_of(tmp_path, "vit", "head", "run")
    made = [RunFolder(recipe) for _ in range(3)]
    yield made
    for folder in made:
        folder.close()


def test_a_folder_is_one_runs_also_while_another_leaves_it(folders, monkeypatch):
    """The second opens it at the very moment in which the first has given it back."""
    first, second, third = folders
    first.open()
    (first.path / "recipe.yaml").write_text("")  # something was begun: the folder stays
    given_back = first._lock.release

    def then_the_second(*args, **kwargs):
        given_back(*args, **kwargs)
        second.open()

    monkeypatch.setattr(first._lock, "release", then_the_second)
    first.close()
    with pytest.raises(UserError, match="Another process is running"):
        third.open()


def test_where_nothing_was_begun_nothing_is_left(folders):
    folders[0].open()
    folders[0].checkpoints.mkdir()
    folders[0].close()
    assert not folders[0].path.exists()


def state(recipe):
    """An interrupted run of that recipe."""
    found = RunFolder(recipe)
    found.open()
    found.claim(FACTS, None)
    (found.checkpoints / "checkpoint-1").mkdir()
    (found.checkpoints / "checkpoint-1" / SEAL).write_text("{}")
    found.close()


def test_an_interrupted_run_may_go_on_without_kept_features_but_not_without_its_views(tmp_path):
    plain = recipe_of(tmp_path, "vit", "head", "plain")
    state(plain)
    RunFolder(recipe_of(tmp_path, "vit", "head", "plain", cache={"prefix": "off", "max_gb": 1}))
    views = recipe_of(tmp_path, "vit", "head", "views", data=FLIPS, cache={"views": 2})
    state(views)
    RunFolder(recipe_of(tmp_path, "vit", "head", "views", data=FLIPS, cache={"views": 2, "max_gb": 1}))
    with pytest.raises(UserError, match=r"cache\.prefix: there 'auto', here 'on'"):
        RunFolder(recipe_of(tmp_path, "vit", "head", "views", data=FLIPS, cache={"views": 2, "prefix": "on"}))
    with pytest.raises(UserError, match=r"cache\.views: there 2, here None"):
        RunFolder(recipe_of(tmp_path, "vit", "head", "views", data=FLIPS, cache={"prefix": "off"}))
    with pytest.raises(ValidationError, match=r"keeps views of images, and cache\.prefix is off"):
        recipe_of(tmp_path, "vit", "head", "views", data=FLIPS, cache={"views": 2, "prefix": "off"})


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({}, {}, ""),
        ({"products": "oneDNN"}, {}, "started with products oneDNN and goes on with MKL."),
        ({"channels_last": True}, {}, "started with channels_last True and goes on without."),
        ({}, {"micro_batch": 8}, "started without micro_batch and goes on with 8."),
    ],
    ids=str,
)
def test_what_has_changed_since_a_run_began_is_told(capsys, then, now, words):
    compare({**FACTS, **then}, {**FACTS, **now})
    said = capsys.readouterr().out
    assert said.count("note:") == (1 if words else 0)
    assert words in said


def test_what_a_run_finds_out_late_and_what_old_runs_did_not_write_is_no_change(tmp_path, capsys):
    recipe = recipe_of(tmp_path, "vit", "head", "run")
    state(recipe)
    folder = RunFolder(recipe)
    folder.record(prefix=[None], sweep={"learning_rate": 1.0})
    assert folder.checkpoint(FACTS) is not None
    compare({name: FACTS[name] for name in ("data", "frozen", "processes", "precision")}, FACTS)
    assert "note:" not in capsys.readouterr().out
