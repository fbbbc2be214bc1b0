"""Kept features under what happens to runs: interruptions, several processes, two runs at once."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from cache_samples import data_for, recipe_of, run
from conftest import REPOSITORY
from filelock import FileLock
from safetensors.numpy import load_file
from test_cache_equal import DATA, assert_alike

from hf_finetune import finetune
from hf_finetune import prefix_store as store
from hf_finetune.runs import Run
from hf_finetune.training.sealed_trainer import SealedTrainer

STEPS = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2, "num_train_epochs": 4}
LP_FT = {"kind": "lp_ft", "head_epochs": 2}


@pytest.mark.parametrize("strategy", ["head", LP_FT, {"kind": "freeze", "train_blocks": 1}], ids=str)
@pytest.mark.parametrize("saves", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, strategy, saves):
    """Interrupted in the middle of an epoch, in either stage, with the features there or gone."""
    whole = run(tmp_path, "vit", strategy, "whole", training=STEPS, data=DATA)
    recipe = recipe_of(tmp_path, "vit", strategy, "broken", training=STEPS, data=DATA)
    save, count = SealedTrainer._save_checkpoint, []

    def interrupted(self, *args):
        save(self, *args)
        count.append(self.state.global_step)
        if len(count) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SealedTrainer, "_save_checkpoint", interrupted)
        finetune(recipe, data=data_for("vit"), precision="no")
    if saves == 1:
        store.clear()
    resumed = finetune(recipe, data=data_for("vit"), precision="no")
    assert_alike(whole, resumed)
    assert resumed.metrics["train"]["loss"] == pytest.approx(whole.metrics["train"]["loss"], rel=1e-5)


def test_a_second_run_waits_for_the_one_that_computes(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    lock = FileLock(store.home() / f".{store.entries()[0].folder.name}.lock")
    held = threading.Event()

    def other_run():
        with lock:
            held.set()
            time.sleep(1)

    thread = threading.Thread(target=other_run)
    thread.start()
    held.wait()
    run(tmp_path, "vit", "head", "second")
    thread.join()
    assert "another run is computing these features" in capsys.readouterr().out


def test_balanced_sampling_and_averages_go_with_it(tmp_path):
    sections = {"loss": {"sampling": "balanced"}, "average": {"ema": 0.9}}
    kept = run(tmp_path, "vit", "head", "kept", **sections)
    assert_alike(kept, run(tmp_path, "vit", "head", "plain", cache={"prefix": "off"}, **sections))


def test_r_drop_doubles_the_features_of_a_batch(tmp_path):
    sections = {"loss": {"r_drop": 1.0}, "model": {"checkpoint": str(tmp_path / "bert")}}
    kept = run(tmp_path, "bert", "head", "kept", **sections)
    assert_alike(kept, run(tmp_path, "bert", "head", "plain", cache={"prefix": "off"}, **sections))


def test_other_views_at_the_end_read_real_images(tmp_path, capsys):
    sections = {"evaluation": {"bootstrap": 0, "tta": "flip"}}
    kept = run(tmp_path, "vit", "head", "kept", **sections)
    assert "features of 33 x 16" in capsys.readouterr().out  # not those of the test split
    assert_alike(kept, run(tmp_path, "vit", "head", "plain", cache={"prefix": "off"}, **sections))


def test_nothing_of_it_is_in_the_finished_model(tmp_path):
    finished = run(tmp_path, "vit", "head", "run")
    answered = Run.load(finished.path).predict(data_for("vit")["test"]["image"])
    logits = np.asarray([row for row in answered["probabilities"]]) if "probabilities" in answered else None
    assert len(answered) == 10
    assert logits is None or np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_fill_and_read_one_file(run_in):
    job = (
        "recipe=digits", "strategy=head", "data.max_train_samples=101", "data.max_eval_samples=37", "precision=no",
        "training.num_train_epochs=2", "training.optim=sgd", "training.learning_rate=0.05", "evaluation.bootstrap=0",
    )  # fmt: skip
    script = str(REPOSITORY / "hf_finetune" / "run.py")
    both = run_in(
        "torchrun", "--standalone", "--nproc_per_node", "2", script, *job,
        "training.per_device_train_batch_size=8", "output_dir=two",
    )  # fmt: skip
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("frozen prefix: features of") == 1
    one = run_in(
        "python", script, *job, "training.per_device_train_batch_size=16", "output_dir=one", "cache.prefix=off"
    )
    assert one.returncode == 0, one.stderr
    folders = run_in.folder / "one", run_in.folder / "two"
    weights, others = (load_file(folder / "model.safetensors") for folder in folders)
    for name in weights:
        np.testing.assert_allclose(others[name], weights[name], rtol=1e-3, atol=2e-5, err_msg=name)
    scores, those = (json.loads((folder / "metrics.json").read_text())["test"] for folder in folders)
    assert scores["accuracy"] == those["accuracy"]
