"""Kept features under what happens to runs: interruptions, several processes, two runs at once."""

from __future__ import annotations

import json
import socket
import threading
import time

import numpy as np
import pytest
from cache_samples import data_for, recipe_of, run
from conftest import REPOSITORY
from run_samples import break_off, check_same, on_one_and_on_two_processes
from test_cache_equal import DATA, assert_alike

from hf_finetune import finetune
from hf_finetune import prefix_store as store
from hf_finetune.errors import UserError
from hf_finetune.runs import Run
from hf_finetune.training import prefix_split

STEPS = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2, "num_train_epochs": 4}
LP_FT = {"kind": "lp_ft", "head_epochs": 2}


@pytest.mark.parametrize("strategy", ["head", LP_FT, {"kind": "freeze", "train_blocks": 1}], ids=str)
@pytest.mark.parametrize("saves", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, strategy, saves):
    """Interrupted in the middle of an epoch, in either stage, with the features there or gone."""
    whole = run(tmp_path, "vit", strategy, "whole", training=STEPS, data=DATA)
    recipe = recipe_of(tmp_path, "vit", strategy, "broken", training=STEPS, data=DATA)
    break_off(recipe, monkeypatch, saves=saves, data=data_for("vit"), precision="no")
    if saves == 1:
        store.clear()
    resumed = finetune(recipe, data=data_for("vit"), precision="no")
    assert_alike(whole, resumed)
    assert resumed.metrics["train"]["loss"] == pytest.approx(whole.metrics["train"]["loss"], rel=1e-5)


def broken_off(tmp_path, monkeypatch, name="run", **sections):
    recipe = recipe_of(tmp_path, "vit", "head", name, training=STEPS, data=DATA, **sections)
    break_off(recipe, monkeypatch, data=data_for("vit"), precision="no")
    return json.loads((tmp_path / name / "state.json").read_text())


def go_on(tmp_path, name="run", **sections):
    return run(tmp_path, "vit", "head", name, training=STEPS, data=DATA, **sections)


def test_what_is_kept_is_a_fact_of_the_run(tmp_path, monkeypatch):
    kept = broken_off(tmp_path, monkeypatch)["prefix"]
    train = next(entry for entry in store.entries() if entry.meta.what.endswith("train"))
    assert kept == [{"blocks": 3, "format": "computed in fp32, kept in fp32", "key": train.key}]
    assert broken_off(tmp_path, monkeypatch, "off", cache={"prefix": "off"})["prefix"] == [None]
    go_on(tmp_path)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["prefix"] == kept


def test_a_run_that_began_without_features_goes_on_without(tmp_path, monkeypatch, capsys):
    """The disk was full, and is not any more: the rest of the run would be computed in another way."""
    assert broken_off(tmp_path, monkeypatch, cache={"max_gb": 1e-7})["prefix"] == [None]
    capsys.readouterr()
    resumed = go_on(tmp_path)
    assert "frozen prefix: runs with every batch: as this run began" in capsys.readouterr().out
    assert store.entries() == []
    assert_alike(resumed, go_on(tmp_path, "whole", cache={"prefix": "off"}))


def test_a_run_that_began_with_features_does_not_go_on_without_them_unless_told(tmp_path, monkeypatch, capsys):
    broken_off(tmp_path, monkeypatch)
    store.clear()
    with pytest.raises(UserError, match=r"this run began with kept features.*of disk.*cache\.prefix=off goes on"):
        go_on(tmp_path, cache={"max_gb": 1e-7})
    resumed = go_on(tmp_path, cache={"prefix": "off"})
    assert resumed.metrics["train"]["epochs"] == 4
    with pytest.raises(UserError, match="another recipe's run"):  # a finished run is what its recipe says
        go_on(tmp_path, cache={"prefix": "on"})


def test_a_resumed_run_keeps_features_also_where_little_is_left_to_gain(tmp_path, monkeypatch, capsys):
    """What was worth it when the run began is not decided anew."""
    assert broken_off(tmp_path, monkeypatch, cache={"prefix": "on"})["prefix"][0]["blocks"] == 3
    store.clear()
    go_on(tmp_path)
    assert "features of 43 x 16" in capsys.readouterr().out


def test_a_second_run_waits_for_the_one_that_computes(tmp_path, monkeypatch):
    run(tmp_path, "vit", "head", "first")
    lock = store.lock_of(store.entries()[0].key)
    lock.acquire()
    told = []

    def heard(text):
        told.append(text)
        lock.release()  # the other run is done

    monkeypatch.setattr(prefix_split, "say", heard)
    run(tmp_path, "vit", "head", "second")
    assert told == ["frozen prefix: another run is computing these features; waiting for it."]


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
def test_two_processes_fill_and_read_one_file(call, run_in):
    job = (
        "recipe=digits", "strategy=head", "data.max_train_samples=101", "data.max_eval_samples=37", "precision=no",
        "training.num_train_epochs=2", "training.optim=sgd", "training.learning_rate=0.05", "evaluation.bootstrap=0",
    )  # fmt: skip
    both = on_one_and_on_two_processes(call, run_in, job, 16, "cache.prefix=off")
    assert both.said.count("frozen prefix: features of") == 1
    one, two = check_same(both, "model.safetensors")
    assert one["test"]["accuracy"] == two["test"]["accuracy"]


JOB = (
    "recipe=digits", "strategy=head", "data.max_train_samples=101", "data.max_eval_samples=37", "precision=no",
    "training.num_train_epochs=2", "evaluation.bootstrap=0", "output_dir=run",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.distributed
def test_a_fault_of_one_process_in_the_middle_stops_all_with_the_reason(run_in):
    """Of any kind: the other would otherwise wait for it until the launcher's time is up."""
    run_in.folder.mkdir(exist_ok=True)
    (run_in.folder / "job.py").write_text(
        "import os, sys\n"
        "from hf_finetune.training import prefix_split\n"
        "def fails(*args):\n"
        "    raise RuntimeError('no such page in process ' + os.environ['RANK'])\n"
        "if os.environ['RANK'] == '1':\n"
        "    prefix_split.fill = fails\n"
        "from hf_finetune.cli import main\n"
        "sys.exit(main(['train', *sys.argv[1:]]))\n"
    )
    began = time.monotonic()
    found = run_in("torchrun", "--standalone", "--nproc_per_node", "2", "job.py", *JOB, timeout=200)
    assert found.returncode != 0
    assert "Process 1 of 2: RuntimeError: no such page in process 1" in found.stderr
    assert time.monotonic() - began < 150


@pytest.mark.long
@pytest.mark.distributed
def test_several_machines_keep_nothing(run_in):
    """Two launchers on one address are two machines: their disks are not one."""
    script = str(REPOSITORY / "hf_finetune" / "run.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    found = {}

    def machine(number):
        where = ("--nnodes", "2", "--node_rank", str(number), "--master_addr", "127.0.0.1", "--master_port", port)
        found[number] = run_in("torchrun", *where, "--nproc_per_node", "1", script, *JOB, timeout=280)

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number].returncode for number in range(2)] == [0, 0], found[0].stderr + found[1].stderr
    said = found[0].stdout + found[1].stdout
    assert said.count("frozen prefix: runs with every batch: several machines do not share one file") == 1
    assert store.entries() == []
