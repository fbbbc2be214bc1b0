"""Runs on streamed rows: those of rows in memory in all but the order; gone on with to the bit, in any pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from cache_samples import recipe_of, weights_of
from conftest import REPOSITORY
from model_samples import TEXT_FAMILIES
from run_samples import break_off
from stream_samples import as_parquet, made, pictures, sentences

from hf_finetune import finetune
from hf_finetune.data.packages import read_package

SIZES = {"train": 26, "validation": 9, "test": 10}
STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}


def a_recipe(tmp_path, family, name, **training):
    data = {"dataset": "none", "validation": "validation", "streaming": True}
    return recipe_of(tmp_path, family, "full", name, data=data, training={**STEPS, **training})


def sources(family):
    return made(sentences if family in TEXT_FAMILIES else pictures, SIZES)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "saves"), [("vit", 2), ("bert", 1)])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch, family, saves):
    """Three steps a pass, a checkpoint every two: after the first save in the first pass, after the second in the
    second. `datasets`' own streams go on wrongly there."""
    whole = finetune(a_recipe(tmp_path, family, "whole"), data=sources(family), precision="no")
    recipe = a_recipe(tmp_path, family, "parts")
    break_off(recipe, monkeypatch, saves=saves, data=sources(family), precision="no")
    parts = finetune(recipe, data=sources(family), precision="no")
    for name, tensor in weights_of(whole).items():
        assert torch.equal(weights_of(parts)[name], tensor), name
    assert parts.metrics["test"]["accuracy"] == whole.metrics["test"]["accuracy"]
    assert whole.metrics["test"]["samples"] == 10


@pytest.mark.slow
def test_workers_of_the_loader_change_nothing(tmp_path):
    alone = finetune(a_recipe(tmp_path, "vit", "alone"), data=sources("vit"), precision="no")
    helped = a_recipe(tmp_path, "vit", "helped", dataloader_num_workers=2)
    found = finetune(helped, data=sources("vit"), precision="no")
    for name, tensor in weights_of(alone).items():
        assert torch.equal(weights_of(found)[name], tensor), name


@pytest.mark.slow
def test_a_row_that_a_loaders_worker_cannot_use_is_told_in_one_line(tmp_path):
    given = sources("vit")
    broken = given["train"].table.to_pylist()
    broken[5]["image"] = {"bytes": b"nothing", "path": None}
    given["train"].table = type(given["train"].table).from_pylist(broken, schema=given["train"].table.schema)
    with pytest.raises(Exception, match=r"^row 5 of train \(counted from 0\) cannot be used"):
        finetune(a_recipe(tmp_path, "vit", "run", dataloader_num_workers=1), data=given, precision="no")


JOB = (
    *("recipe=digits", "model.checkpoint=package:digits-vit", "data.streaming=true", "data.max_eval_samples=100"),
    *("data.test_split=test", "data.validation=0.1", "data.max_train_samples=500", "precision=no"),
    *("training.optim=sgd", "training.learning_rate=0.05", "training.num_train_epochs=2", "evaluation.bootstrap=0"),
    *("training.eval_strategy=steps", "training.eval_steps=10", "training.save_steps=10", "output_dir=run"),
)


def shards(folder):
    folder.mkdir(exist_ok=True)
    splits = {name: as_parquet(split, folder, name, 4, 40) for name, split in read_package("digits").items()}
    return f"data.dataset={json.dumps({name: [str(p) for p in paths] for name, paths in splits.items()})}"


@pytest.mark.long
@pytest.mark.distributed
def test_a_run_of_one_two_and_four_processes_is_one_run(run_in):
    from safetensors.torch import load_file

    given, script = shards(run_in.folder), str(REPOSITORY / "hf_finetune" / "run.py")
    found = {}
    for processes in (1, 2, 4):
        launch = ("torchrun", "--standalone", "--nproc_per_node", str(processes), script)
        size = f"training.per_device_train_batch_size={16 // processes}"
        result = run_in(*launch, *JOB, given, size, OMP_NUM_THREADS="1")
        assert result.returncode == 0, result.stderr
        found[processes] = load_file(run_in.folder / "run" / "model.safetensors")
        (run_in.folder / "run").rename(run_in.folder / f"run{processes}")
    for processes in (2, 4):
        for name, tensor in found[1].items():
            torch.testing.assert_close(found[processes][name], tensor, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.long
def test_a_run_that_is_killed_in_its_second_pass_ends_with_the_same_weights(run_in):
    given = shards(run_in.folder)
    command = [sys.executable, "-m", "hf_finetune.run", *JOB, given, "training.per_device_train_batch_size=16"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    whole = subprocess.run(command, cwd=run_in.folder, env=environment, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    expected = (run_in.folder / "run" / "model.safetensors").read_bytes()
    (run_in.folder / "run").rename(run_in.folder / "whole")
    checkpoints = run_in.folder / "run" / "checkpoints"
    with subprocess.Popen(command, cwd=run_in.folder, env=environment, stdout=subprocess.PIPE) as started:
        while not (checkpoints / "checkpoint-40").exists() and started.poll() is None:  # 31 steps a pass
            time.sleep(0.02)
        started.send_signal(signal.SIGKILL)
    again = subprocess.run(command, cwd=run_in.folder, env=environment, capture_output=True, text=True, check=False)
    assert "Continuing from" in again.stdout
    assert (run_in.folder / "run" / "model.safetensors").read_bytes() == expected
