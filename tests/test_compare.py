"""`hf-finetune compare` from the command line to its page: equal budgets, tests, what failed, and going on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

JOB = (
    "recipe=digits", "strategy=head,full", "seeds=2", "data.max_train_samples=80", "data.max_eval_samples=60",
    "training.num_train_epochs=2", "evaluation.bootstrap=100", "precision=no",
)  # fmt: skip


def results_in(folder):
    return json.loads((folder / "compare.json").read_text())


def without_times(found):
    """A result but for the seconds, which no two starts have alike, and what is said of them."""
    cells = [{key: value for key, value in cell.items() if "seconds" not in key} for cell in found["cells"]]
    return {**found, "cells": cells, "take": found["take"]["best"]}


@pytest.mark.slow
def test_a_comparison_from_start_to_page(call):
    done = call("compare", *JOB, "strategy.layer_decay=0.8", "output_dir=out")
    assert done.returncode == 0, done.stderr
    assert "comparing 2 x 2 seeds (0 to 1) = 4 runs of digits: head | full" in done.stdout
    assert "the same 2 epochs each" in done.stdout
    lines = [line for line in done.stdout.splitlines() if " of 4  " in line]
    assert [line.split("  ")[1].split(":")[0] for line in lines] == [
        "head, seed 0", "full, seed 0", "head, seed 1", "full, seed 1",
    ]  # fmt: skip
    assert "Trained" not in done.stdout  # the runs are silent
    folder = call.folder / "out"
    found = results_in(folder)
    assert (found["metric"], found["split"], found["samples"], found["seeds"]) == ("accuracy", "test", 60, [0, 1])
    for cell, own in zip(found["cells"], ("head", "full"), strict=True):
        runs = [json.loads((folder / own / at / "metrics.json").read_text()) for at in (".", "seeds/1")]
        assert cell["score"]["values"] == [run["test"]["accuracy"] for run in runs]
        assert runs[0]["seeds"]["metrics"]["accuracy"]["ci95"] == cell["score"]["ci95"]  # as `seeds: 2` writes it
    assert [pair["method"] for pair in found["pairs"]] == ["t over seeds and rows"]
    assert found["baseline"]["what"].startswith("always ") and 0 < found["baseline"]["score"] < 0.4
    page = (folder / "compare.html").read_text()
    wanted = ["Time against score", "Is it chance?", "strategy.layer_decay", found["take"]["sentence"].split(":")[0]]
    assert [part for part in wanted if part not in page] == []
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded

    again = call("compare", *JOB, "strategy.layer_decay=0.8", "output_dir=out")
    assert again.stdout.count("finished before") == 4
    assert results_in(folder) == found


@pytest.mark.slow
def test_what_fails_is_told_and_the_rest_is_compared(call):
    few = [pair for pair in JOB if not pair.startswith(("seeds", "strategy"))]
    missing = "model.checkpoint=package:digits-resnet,./no-such-checkpoint"
    done = call("compare", *few, "strategy=head", missing, "output_dir=out")
    assert done.returncode == 0, done.stderr
    found = results_in(call.folder / "out")
    assert [cell["name"] for cell in found["cells"]] == ["package:digits-resnet"]
    assert [one["name"] for one in found["failed"]] == ["no-such-checkpoint"]
    assert "no-such-checkpoint" in found["failed"][0]["reason"]
    assert found["take"]["sentence"].startswith("Only package:digits-resnet has finished")
    page = (call.folder / "out" / "compare.html").read_text()
    assert "Failed" in page and "no-such-checkpoint" in page


@pytest.mark.long
def test_killed_and_started_again_it_ends_with_the_same_table(call):
    """The kill comes in the middle of a run, the reference is never interrupted; both have the same scores."""
    few = (*JOB, "training.save_strategy=steps", "training.save_steps=2", "training.eval_strategy=steps",
           "training.eval_steps=2")  # fmt: skip
    call.folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "hf_finetune.cli", "compare", *few, "output_dir=killed"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(command, cwd=call.folder, env=environment, **silent)
    inside = call.folder / "killed" / "full"
    until = time.monotonic() + 120
    while not list(inside.glob("checkpoints/checkpoint-*")) and time.monotonic() < until:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not (call.folder / "killed" / "compare.json").exists()
    on = call("compare", *few, "output_dir=killed")
    assert on.returncode == 0 and "finished before" in on.stdout, on.stderr
    whole = call("compare", *few, "output_dir=whole")
    assert whole.returncode == 0, whole.stderr

    def table(name):
        text = json.dumps(without_times(results_in(call.folder / name)))
        return text.replace("killed", "whole")

    assert table("killed") == table("whole")


@pytest.mark.long
def test_auto_chooses_once_and_goes_on(call):
    few = [pair for pair in JOB if not pair.startswith("strategy")]
    auto = (
        *few,
        "training.num_train_epochs=1",
        "strategy=auto,head",
        "strategy.candidates=[freeze]",
        "strategy.share=0.9",
    )
    done = call("compare", *auto, "output_dir=out")
    assert done.returncode == 0, done.stderr
    first, other = (call.folder / "out" / "auto" / at for at in (".", "seeds/1"))
    chosen = json.loads((first / "advice.json").read_text())
    assert not (other / "advice.json").exists()  # the second seed repeats the first one's choice
    assert "kind: freeze" in (other / "recipe.yaml").read_text()
    cells = {cell["name"]: cell for cell in results_in(call.folder / "out")["cells"]}
    runs = [json.loads((at / "metrics.json").read_text())["train"]["total_seconds"] for at in (first, other)]
    assert cells["auto"]["seconds"] == pytest.approx(sum(runs) / 2 + chosen["advice"]["seconds"], abs=0.01)
    again = call("compare", *auto, "output_dir=out")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before") == 4


@pytest.mark.slow
def test_what_was_not_equal_after_all_is_said(call):
    """A budget that some outgrow, a test split that one has not, other processes than before."""
    few = [pair for pair in JOB if not pair.startswith(("seeds", "strategy"))]
    done = call("compare", *few, "strategy=features", "data.test_split=auto,null", "budget=0.001s", "output_dir=out")
    assert done.returncode == 0, done.stderr
    found = results_in(call.folder / "out")
    assert (found["split"], found["samples"]) == ("validation", 8)
    assert [pair["method"] for pair in found["pairs"]] == ["t over seeds, rows not paired"]
    assert [note.split(":")[0] for note in found["notes"]] == [
        "There is no test split that all have", "Longer than the budget",
        "More time beside training than the budget gives to it",
    ]  # fmt: skip
    file = call.folder / "out" / "test_split=null" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["train"]["processes"] = 2
    file.write_text(json.dumps(metrics))
    again = call("compare", *few, "strategy=features", "data.test_split=auto,null", "budget=0.001s", "output_dir=out")
    assert "the same number of processes" in again.stdout and "2: test_split=null" in again.stdout


@pytest.mark.distributed
@pytest.mark.long
def test_on_two_processes_the_same_table_also_where_one_run_fails(call, run_in):
    few = (*(pair for pair in JOB if not pair.startswith(("strategy", "precision"))), "precision=no")
    job = (*few, "strategy=head,full", "model.checkpoint=package:digits-vit,./no-such", "training.optim=sgd",
           "training.learning_rate=0.05")  # fmt: skip
    size = "training.per_device_train_batch_size="
    one = call("compare", *job, f"{size}16", "output_dir=one")
    assert one.returncode == 0, one.stderr
    torchrun = ("torchrun", "--standalone", "--nproc_per_node", "2", "-m", "hf_finetune.cli")
    two = run_in(*torchrun, "compare", *job, f"{size}8", "output_dir=two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("comparing 4 x 2 seeds") == 1  # one rank speaks
    first, second = (results_in(run_in.folder / name) for name in ("one", "two"))
    assert [cell["score"] for cell in second["cells"]] == [cell["score"] for cell in first["cells"]]
    assert second["pairs"] == first["pairs"]
    assert [one["name"] for one in second["failed"]] == [one["name"] for one in first["failed"]]
    again = run_in(*torchrun, "compare", *job, f"{size}8", "output_dir=two")
    assert again.returncode == 0 and again.stdout.count("finished before") == 4, again.stderr
    assert results_in(run_in.folder / "two")["cells"] == second["cells"]
