"""A run's folder: never two runs in it, and what is told where a run goes on."""

from __future__ import annotations

import pytest
from cache_samples import recipe_of
from pydantic import ValidationError

from hf_finetune.errors import TransientError, UserError
from hf_finetune.training.checkpoints import SEAL, rotate
from hf_finetune.training.folder import RunFolder
from hf_finetune.training.same_run import compare

FACTS = {
    "data": "d",
    "rows": [24, 9, 10],
    "frozen": "f",
    "processes": 1,
    "versions": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "pillow": "12.0"},
    "precision": "no",
    "products": "MKL",
    "attention": "fused",
}
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
    with pytest.raises(TransientError, match="Another process is running"):
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


@pytest.mark.parametrize(
    ("name", "now", "words"),
    [
        ("data", "other", r"The data is not what.*there d \(\[24, 9, 10\] rows\), here other \("),
        ("frozen", "other", "The frozen weights are not.*there f, here other"),
        ("processes", 2, "another number of processes.*there 1, here 2"),
        ("versions", {**FACTS["versions"], "torch": "2.14.0"}, r"torch 2\.13\.0\+cpu and goes on with 2\.14\.0"),
        ("versions", {"torch": "2.13.0+cpu"}, r"transformers 5\.23\.0 and goes on with none"),
    ],
    ids=str,
)
def test_what_would_change_the_rest_of_a_run_is_refused_with_the_difference_and_the_flag(capsys, name, now, words):
    with pytest.raises(UserError, match=rf"(?s){words}") as refused:
        compare(FACTS, {**FACTS, name: now})
    assert "--accept-changes" in str(refused.value) and "give another output_dir" in str(refused.value)
    accepted = compare(FACTS, {**FACTS, name: now}, accept=True)
    assert len(accepted) == 1 and accepted[0].startswith(name)
    assert "no longer the run that was started" in capsys.readouterr().err


def test_all_that_differs_is_shown_at_once():
    with pytest.raises(UserError, match=r"(?s)What differs: there d.*Also: processes: there 1, here 4\."):
        compare(FACTS, {**FACTS, "data": "e", "processes": 4})


@pytest.mark.parametrize(
    "versions", [{"torch": "2.13.1+cu128"}, {"pillow": "13.0"}, {"transformers": "5.23.4", "pillow": "11"}], ids=str
)
def test_versions_that_keep_their_arithmetic_are_told(capsys, versions):
    assert compare(FACTS, {**FACTS, "versions": {**FACTS["versions"], **versions}}) == []
    said = capsys.readouterr().out
    assert said.count("note: this run was started with") == len(versions)
    assert all(f"{name} {FACTS['versions'][name]} and goes on with {now}" in said for name, now in versions.items())


def test_settings_that_change_no_step_are_told_and_others_are_refused_or_accepted(tmp_path, capsys):
    began = recipe_of(tmp_path, "vit", "full", "run")
    state(began)
    RunFolder(recipe_of(tmp_path, "vit", "full", "run", training={"dataloader_num_workers": 2, "save_total_limit": 5}))
    said = capsys.readouterr().out
    assert "dataloader_num_workers: there 0, here 2" in said and "save_total_limit: there None, here 5" in said
    slower = recipe_of(tmp_path, "vit", "full", "run", training={"learning_rate": 1e-3})
    with pytest.raises(UserError, match=r"(?s)learning_rate: there 0\.01, here 0\.001.*--accept-changes"):
        RunFolder(slower)
    folder = RunFolder(slower, accept_changes=True)
    folder.open()
    folder.claim(FACTS, folder.checkpoint(FACTS))
    folder.close()
    changes = ["training.learning_rate: there 0.01, here 0.001"]
    assert folder.accepted == {"accepted_changes": [{"step": 1, "changes": changes}]}
    RunFolder(slower)  # it is this recipe's run from now on
    with pytest.raises(UserError, match="another recipe's run"):
        RunFolder(began)


def test_a_finished_run_takes_no_other_recipe_whatever_is_accepted(tmp_path):
    state(recipe_of(tmp_path, "vit", "full", "run"))
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="another recipe's run"):
        RunFolder(recipe_of(tmp_path, "vit", "full", "run", training={"learning_rate": 1e-3}), accept_changes=True)


def test_a_recipe_of_ones_own_is_not_overwritten_by_accepting_changes(tmp_path):
    own = recipe_of(tmp_path, "vit", "full", "run").to_yaml()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(own)
    with pytest.raises(UserError, match="never overwritten"):
        RunFolder(recipe_of(tmp_path, "vit", "full", "run", training={"learning_rate": 1e-3}), accept_changes=True)


def test_what_a_killed_write_has_left_is_nobodys(tmp_path):
    """Killed in the first write of all: the next start took the folder for somebody else's."""
    recipe = recipe_of(tmp_path, "vit", "full", "run")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    left = [tmp_path / "run" / ".recipe.yaml.4711.yaml", tmp_path / "run" / ".state.json.4711.json"]
    for path in left:
        path.write_text("task: image-cl")
    folder = RunFolder(recipe)
    folder.open()
    folder.claim(FACTS, None)
    folder.close()
    assert not any(path.exists() for path in left)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".recipe.yaml.old.yaml").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        RunFolder(recipe_of(tmp_path, "vit", "full", "other"))


def test_a_damaged_checkpoint_ahead_does_not_count_as_the_newest(tmp_path):
    """It did: the checkpoint that was written next was the surplus one, and was deleted."""
    recipe = recipe_of(tmp_path, "vit", "full", "run")
    state(recipe)
    damaged = tmp_path / "run" / "checkpoints" / "checkpoint-9"
    damaged.mkdir()
    folder = RunFolder(recipe)
    found = folder.checkpoint(FACTS)
    assert found is not None and found.name == "checkpoint-1"
    folder.open()
    folder.claim(FACTS, found)
    folder.close()
    names = {path.name for path in damaged.parent.iterdir()}
    assert names == {"checkpoint-1", "left-1-checkpoint-9"}


def test_where_every_checkpoint_is_damaged_the_new_run_keeps_its_own(tmp_path, capsys):
    """It did not: checkpoint-40, which is of no use, counted as the newest, and what was just written went."""
    recipe = recipe_of(tmp_path, "vit", "full", "run")
    state(recipe)
    folder = RunFolder(recipe)
    for step in (30, 40):
        (folder.checkpoints / f"checkpoint-{step}").mkdir()
    (folder.checkpoints / "checkpoint-1" / SEAL).unlink()
    folder.open()
    folder.claim(FACTS, folder.checkpoint(FACTS))
    folder.close()
    assert "checkpoint-40 is damaged; it is kept as left-1-checkpoint-40" in capsys.readouterr().out
    for step in (10, 20):
        (folder.checkpoints / f"checkpoint-{step}").mkdir()
        rotate(folder.checkpoints, 2, {10})
    assert {path.name for path in folder.checkpoints.glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-20"}


def test_a_branch_that_the_run_has_pinned_is_no_difference_and_another_one_is(tmp_path):
    """The same command was refused once the run was saved: there a commit, here main."""
    asked = recipe_of(tmp_path, "vit", "full", "run")
    asked = asked.model_copy(update={"model": asked.model.model_copy(update={"revision": "main"})})
    state(asked)
    pinned = asked.model.model_copy(update={"revision": "0123456789abcdef0123456789abcdef01234567"})
    (tmp_path / "run" / "recipe.yaml").write_text(asked.model_copy(update={"model": pinned}).to_yaml())
    RunFolder(asked)
    (tmp_path / "run" / "metrics.json").write_text("{}")
    assert RunFolder(asked).finished
    assert RunFolder(asked.model_copy(update={"model": pinned})).finished
    for other in ("v2", None):
        model = asked.model.model_copy(update={"revision": other})
        with pytest.raises(UserError, match=r"model\.revision: there '0123456789abcdef"):
            RunFolder(asked.model_copy(update={"model": model}))


def test_a_run_that_named_no_revision_is_the_same_after_it_has_pinned_one(tmp_path):
    asked = recipe_of(tmp_path, "vit", "full", "run")
    state(asked)
    pinned = asked.model_copy(update={"model": asked.model.model_copy(update={"revision": "a" * 40})})
    (tmp_path / "run" / "recipe.yaml").write_text(pinned.to_yaml())
    RunFolder(asked)


def test_a_checkpoint_without_the_facts_of_its_run_is_no_run_that_can_go_on_exactly(tmp_path, capsys):
    """Restored by hand, for example: nothing was compared."""
    recipe = recipe_of(tmp_path, "vit", "full", "run")
    state(recipe)
    (tmp_path / "run" / "state.json").unlink()
    with pytest.raises(UserError, match=r"state\.json.*is missing or unreadable\. Restore it.*--accept-changes"):
        RunFolder(recipe).checkpoint(FACTS)
    folder = RunFolder(recipe, accept_changes=True)
    folder.open()
    folder.claim(FACTS, folder.checkpoint(FACTS))
    folder.close()
    assert "state.json" in str(folder.accepted) and "accepted" in capsys.readouterr().err
