"""Weights, gradients and the optimizer's state in shards (DeepSpeed ZeRO-2 and 3), on processes of the CPU (gloo)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file

from hf_finetune.errors import UserError
from hf_finetune.training.arguments import refuse_sharding_on_cpu
from hf_finetune.training.sharding import loaded_whole, refuse_batch_norm

SCRIPT, CONFIGS = str(REPOSITORY / "hf_finetune" / "run.py"), REPOSITORY / "accelerate_configs"
JOB = (
    *("recipe=digits", "data.max_train_samples=202", "data.max_eval_samples=37", "evaluation.bootstrap=0"),
    *("training.num_train_epochs=5", "precision=no"),
)


def launch(config: str, precision: str = "no") -> tuple[str, ...]:
    sharded = ("--mixed_precision", precision) if config.startswith("deepspeed") else ()
    accelerate = str(Path(sys.executable).parent / "accelerate")
    return (accelerate, "launch", "--config_file", str(CONFIGS / config), "--num_processes", "2", *sharded, SCRIPT)


def killed_behind(file: Path, command: tuple[str, ...], folder: Path) -> None:
    """Start a command and kill all of its processes when the file is there."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (folder / "log").open("w") as log:
        run = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    until = time.monotonic() + 240
    while not file.exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    for process in (*run.children(recursive=True), run):
        process.kill()
    run.wait()
    assert file.exists(), (folder / "log").read_text()


@pytest.mark.distributed
@pytest.mark.long
@pytest.mark.parametrize(("stage", "model"), [(2, "package:digits-resnet"), (3, "package:digits-vit")])
def test_shards_learn_what_whole_copies_learn_also_after_a_kill(stage, model, tmp_path, run_in):
    pytest.importorskip("deepspeed", reason="pip install deepspeed")
    run_in.folder.mkdir()
    job, sharded = (*JOB, f"model.checkpoint={model}"), launch(f"deepspeed_zero{stage}.yaml")
    done = [
        run_in(*launch("cpu_2proc.yaml"), *job, "output_dir=copies"),
        run_in(*sharded, *job, "output_dir=shards"),
    ]
    assert not any(each.returncode for each in done), done
    first = run_in.folder / "killed" / "checkpoints" / "checkpoint-4" / "sealed.json"
    killed_behind(first, (*sharded, *job, "output_dir=killed"), run_in.folder)
    again = run_in(*sharded, *job, "output_dir=killed")
    assert again.returncode == 0 and "epoch 5 of 5" in again.stdout and "epoch 1 of 5" not in again.stdout
    copies, shards, resumed = (
        load_file(run_in.folder / name / "model.safetensors") for name in ("copies", "shards", "killed")
    )
    scores = [json.loads((run_in.folder / name / "metrics.json").read_text()) for name in ("copies", "shards")]
    assert scores[0]["test"]["loss"] == pytest.approx(scores[1]["test"]["loss"], rel=0.02)
    for name, tensor in shards.items():
        assert torch.equal(tensor, resumed[name]), name
        assert tensor.shape == copies[name].shape
        torch.testing.assert_close(tensor, copies[name], atol=3e-3, rtol=0)


@pytest.mark.distributed
@pytest.mark.long
def test_bf16_and_adapters_in_shards(run_in):
    pytest.importorskip("deepspeed", reason="pip install deepspeed")
    vit = ("model.checkpoint=package:digits-vit", "strategy=lora", "output_dir=lora")
    job = [pair for pair in JOB if not pair.startswith("precision")]
    done = run_in(*launch("deepspeed_zero3.yaml", "bf16"), *job, *vit)
    assert done.returncode == 0 and "bf16 (accelerate config)" in done.stdout, done.stderr
    assert (run_in.folder / "lora" / "adapter_model.safetensors").exists()
    refused = run_in(*launch("deepspeed_zero3.yaml", "bf16"), *job, "output_dir=resnet")
    assert refused.returncode and "is a BatchNorm" in refused.stderr


def test_a_batch_norm_needs_fp32(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    refuse_batch_norm(model, "bf16")  # whole copies in autocast
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    refuse_batch_norm(model, "no")
    refuse_batch_norm(model[:1], "bf16")
    with pytest.raises(UserError, match="weights in bf16, and 1 is a BatchNorm"):
        refuse_batch_norm(model, "bf16")


def test_on_the_cpu_fsdp_is_refused_and_deepspeed_is_not(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    refuse_sharding_on_cpu()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="asks for FSDP, which needs GPUs"):
        refuse_sharding_on_cpu()


class Zero3:
    """What transformers asks of a DeepSpeed configuration; its own class needs DeepSpeed."""

    def is_zero3(self):
        return True


def test_models_are_loaded_whole_under_zero_3():
    from transformers.integrations import deepspeed

    settings = Zero3()
    try:
        deepspeed.set_hf_deepspeed_config(settings)
        assert deepspeed.is_deepspeed_zero3_enabled()
        with loaded_whole(SimpleNamespace(deepspeed_plugin=SimpleNamespace(dschf=settings))):
            assert not deepspeed.is_deepspeed_zero3_enabled()
        assert deepspeed.is_deepspeed_zero3_enabled()
        with loaded_whole(SimpleNamespace(deepspeed_plugin=None)):
            assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
