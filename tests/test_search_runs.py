"""A search through its verb: trials, what is given up, interruptions, the winner and the test split."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from model_samples import save_checkpoint

from hf_finetune import finetune
from hf_finetune.advice.search import search
from hf_finetune.advice.search_space import with_values
from hf_finetune.errors import UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.runs import Run
from hf_finetune.training.sealed_trainer import SealedTrainer

pytest.importorskip("optuna", reason="needs optuna: pip install 'hf_finetune[search]'")
pytestmark = pytest.mark.slow

SPACE = "{training.learning_rate: {low: 1e-7, high: 1e-2, log: true}, training.weight_decay: [0, 0.01]}"


@pytest.fixture
def job(tmp_path):
    """A tiny BERT on short texts; the test split is a file of its own, whose labels nobody knows."""
    save_checkpoint("bert", tmp_path / "bert")
    rows = [(f"good w{n % 7}", "yes") if n % 3 else (f"bad w{n % 5}", "no") for n in range(90)]
    table = pd.DataFrame(rows, columns=["text", "label"])
    table.to_csv(tmp_path / "train.csv", index=False)
    table.assign(label="nobody knows").to_csv(tmp_path / "test.csv", index=False)
    return (
        "recipe=sst2",
        f"model.checkpoint={tmp_path / 'bert'}",
        f"data.dataset={{train: {tmp_path / 'train.csv'}, test: {tmp_path / 'test.csv'}}}",
        *("data.text=text", "data.label=label", "data.train_split=train", "data.test_split=test"),
        *("data.validation=0.3", "data.max_length=null", "evaluation.bootstrap=50"),
        *("training.num_train_epochs=2", "training.learning_rate=1e-3", "output_dir=run"),
    )


def tried(folder):
    return json.loads((folder / "results.json").read_text())["trials"]


def test_only_the_winner_reads_the_test_split_and_a_killed_search_goes_on(job, call, tmp_path, monkeypatch):
    """Trials run though the test split cannot be read; what it takes to read it comes at the end, once."""
    folder = call.folder / "found"
    command = ("search", *job, f"space={SPACE}", "trials=4", "out=found")
    save, saved = SealedTrainer._save_checkpoint, []

    def killed(self, *args):
        save(self, *args)
        saved.append(self.args.output_dir)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SealedTrainer, "_save_checkpoint", killed)
        assert call(*command).returncode == 130
    assert "trials/001" in saved[-1].replace("\\", "/")  # in the middle of the second trial

    unread = call(*command)
    assert unread.returncode == 2 and "The split test has labels" in unread.stderr
    assert "4 of 4" in unread.stdout and "1 of 4" not in unread.stdout  # the first trial was not run again
    trials = tried(folder)
    assert [trial["trial"] for trial in trials] == [0, 1, 2, 3]
    assert trials[0]["values"] == {} and trials[0]["state"] == "complete"
    assert sorted(path.name for path in (folder / "trials").iterdir() if path.is_dir()) == []
    assert not list(folder.rglob("predictions.parquet"))

    mended = pd.read_csv(tmp_path / "train.csv")
    mended.to_csv(tmp_path / "test.csv", index=False)
    scored = call(*command)
    assert scored.returncode == 0, scored.stderr
    assert tried(folder) == trials
    found = json.loads((folder / "results.json").read_text())
    assert found["test"]["samples"] == 90 and found["test"]["accuracy_ci95"]
    best = max((t for t in trials if t["state"] == "complete"), key=lambda t: (t["validation"], -t["trial"]))
    assert (found["winner"], found["best"]) == (best["trial"], best["validation"])
    run = json.loads((folder / "best" / "metrics.json").read_text())
    assert run["validation"]["accuracy"] == pytest.approx(best["validation"])
    assert [path.parent.name for path in folder.rglob("predictions.parquet")] == ["best"]

    (tmp_path / "test.csv").write_text("text,label\nanother,nobody knows\n")  # to read it again would fail
    again = call(*command)
    assert again.returncode == 0 and "before" in again.stdout, again.stderr
    more = call(*command, "trials=9")
    assert more.returncode == 2 and "chosen by it" in more.stderr
    mended.to_csv(tmp_path / "test.csv", index=False)
    trained = call("train", "recipe=found/best.yaml")
    assert trained.returncode == 0 and "nothing to do" in trained.stdout, trained.stderr


@pytest.mark.long
def test_an_interrupted_search_finds_what_an_uninterrupted_one_does(job, tmp_path, monkeypatch):
    """Trials, scores and what is given up; the trial that was interrupted goes on from its checkpoint."""
    (tmp_path / "test.csv").write_text((tmp_path / "train.csv").read_text())
    # After the one step of a large batch, at rate 0, all would be alike; and accuracies of so few rows often are.
    recipe = load_recipe("sst2", *job[1:], "evaluation.best=loss", "training.per_device_train_batch_size=16")
    whole = search(recipe, finetune, space=SPACE, trials=4, out=tmp_path / "whole")

    save, saved = SealedTrainer._save_checkpoint, []

    def killed(self, *args):
        save(self, *args)
        saved.append(self.state.global_step)
        if len(saved) in (1, 4):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SealedTrainer, "_save_checkpoint", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                search(recipe, finetune, space=SPACE, trials=4, out=tmp_path / "killed")
    gone_on = search(recipe, finetune, space=SPACE, trials=4, out=tmp_path / "killed")

    def facts(found):
        return [(each.number, each.state, each.values, each.score) for each in found.tried]

    assert facts(gone_on) == facts(whole)
    assert gone_on.winner.number == whole.winner.number and gone_on.gain == whole.gain
    assert gone_on.run.metrics["test"] == whole.run.metrics["test"]
    assert "pruned" in {each.state for each in whole.tried}


@pytest.mark.long
def test_a_winner_that_was_interrupted_gives_way_to_a_better_one_and_seeds_are_made_up(tmp_path, monkeypatch):
    """Until the test is read more trials may be taken; afterwards what the winner still lacks is all that is done."""
    given = load_recipe(
        *("digits", "model.checkpoint=package:digits-vit", "data.max_train_samples=100", "data.max_eval_samples=40"),
        *("training.num_train_epochs=1", "evaluation.bootstrap=0", "seeds=2"),
    )
    ask = partial(search, given, space="{training.num_train_epochs: [4, 5, 6]}", out=tmp_path / "found")
    save, where = SealedTrainer._save_checkpoint, ["best"]

    def killed(self, *args):
        save(self, *args)
        if where[0] in Path(self.args.output_dir).parts:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SealedTrainer, "_save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(finetune, trials=2)
        begun = load_recipe(str(tmp_path / "found" / "best" / "recipe.yaml"))
        better = with_values(begun, {"training.num_train_epochs": "2"})  # as if another one had led then
        (tmp_path / "found" / "best" / "recipe.yaml").write_text(better.to_yaml())
        where[0] = "seeds"
        with pytest.raises(KeyboardInterrupt):
            ask(finetune, trials=3)
    assert "seeds" not in Run.load(tmp_path / "found" / "best").metrics
    with pytest.raises(UserError, match="chosen by it"):
        ask(finetune, trials=4)
    assert len(ask(finetune, trials=3).run.metrics["seeds"]["seeds"]) == 2


def test_a_recipe_that_cannot_be_run_says_so_and_leaves_nothing_tried(job, call):
    command = ("search", *job, f"space={SPACE}", "trials=2", "out=found")
    failed = call(*command, "data.label=nowhere")
    assert failed.returncode == 2 and "The recipe as it was given cannot be run" in failed.stderr
    assert "nowhere" in failed.stderr


@pytest.mark.long
@pytest.mark.distributed
def test_two_processes_search_as_one(job, run_in, tmp_path):
    (tmp_path / "test.csv").write_text((tmp_path / "train.csv").read_text())
    torchrun = ("torchrun", "--standalone", "--nproc_per_node", "2", "-m", "hf_finetune.cli")
    done = run_in(*torchrun, "search", *job, f"space={SPACE}", "trials=3", "out=found")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3") == 1  # one rank speaks
    trials = tried(run_in.folder / "found")
    assert len(trials) == 3 and all(trial["state"] in ("complete", "pruned") for trial in trials)
    metrics = json.loads((run_in.folder / "found" / "best" / "metrics.json").read_text())
    assert metrics["train"]["processes"] == 2 and metrics["test"]["samples"] == 90
