"""Weights, gradients and optimizer states in shards (FSDP2, DeepSpeed ZeRO-2 and 3), on processes of the CPU (gloo)."""

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

from hf_finetune import load_recipe
from hf_finetune.errors import UserError
from hf_finetune.training.arguments import refuse_sharding_on_cpu
from hf_finetune.training.sharding import gather_weights, loaded_whole, refuse_batch_norm, refuse_sharding

CONFIGS = REPOSITORY / "accelerate_configs"
GATE = REPOSITORY / "tests" / "faults" / "fsdp2_on_cpu.py"
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true"}  # also where there is a GPU
JOB = (
    *("train", "recipe=digits", "data.max_train_samples=202", "data.max_eval_samples=37", "evaluation.bootstrap=0"),
    *("training.num_train_epochs=5", "precision=no"),
)


def launch(config: str, precision: str = "no") -> tuple[str, ...]:
    file, script = CONFIGS / f"{config}.yaml", GATE if config == "fsdp2" else REPOSITORY / "hf_finetune" / "cli.py"
    accelerate = str(Path(sys.executable).parent / "accelerate")
    options = ("--config_file", str(file), "--num_processes", "2", "--mixed_precision", precision)
    return (accelerate, "launch", *options, str(script))


def killed_behind(file: Path, command: tuple[str, ...], folder: Path) -> None:
    """Start a command and kill all of its processes when the file is there."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **ENVIRONMENT}
    with (folder / "log").open("w") as log:
        run = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    until = time.monotonic() + 240
    while not file.exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    for process in (*run.children(recursive=True), run):
        process.kill()
    run.wait()
    assert file.exists(), (folder / "log").read_text()


def wide_vit(folder: Path) -> str:
    """One block of 131,072 weights a layer: ZeRO-3 leaves smaller ones than 100,000 whole."""
    from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = ViTConfig(**sizes, image_size=28, patch_size=7, num_labels=10)
    ViTForImageClassification(config).save_pretrained(folder)
    shipped = REPOSITORY / "hf_finetune" / "assets" / "digits-vit"
    AutoImageProcessor.from_pretrained(shipped).save_pretrained(folder)
    return str(folder)


@pytest.mark.distributed
@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "model"),
    [("fsdp2", "package:digits-vit"), ("deepspeed_zero2", "package:digits-resnet"), ("deepspeed_zero3", wide_vit)],
)
def test_shards_learn_what_whole_copies_learn_also_after_a_kill(config, model, tmp_path, run_in):
    if config != "fsdp2":
        pytest.importorskip("deepspeed", reason="pip install deepspeed")
    run_in.folder.mkdir()
    checkpoint = model(tmp_path / "wide") if callable(model) else model
    job, sharded = (*JOB, f"model.checkpoint={checkpoint}"), launch(config)
    done = [
        run_in(*launch("cpu_2proc"), *job, "output_dir=copies"),
        run_in(*sharded, *job, "output_dir=shards", **ENVIRONMENT),
    ]
    assert not any(each.returncode for each in done), done
    first = run_in.folder / "killed" / "checkpoints" / "checkpoint-4" / "sealed.json"
    killed_behind(first, (*sharded, *job, "output_dir=killed"), run_in.folder)
    again = run_in(*sharded, *job, "output_dir=killed", **ENVIRONMENT)
    assert again.returncode == 0 and "epoch 5 of 5" in again.stdout and "epoch 1 of 5" not in again.stdout
    copies, shards, resumed = (
        load_file(run_in.folder / name / "model.safetensors") for name in ("copies", "shards", "killed")
    )
    scores = [json.loads((run_in.folder / name / "metrics.json").read_text()) for name in ("copies", "shards")]
    assert scores[0]["test"]["loss"] == pytest.approx(scores[1]["test"]["loss"], rel=0.02)
    configs = [json.loads((run_in.folder / name / "config.json").read_text()) for name in ("copies", "shards")]
    assert configs[0] == configs[1]
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
    done = run_in(*launch("deepspeed_zero3", "bf16"), *job, *vit)
    assert done.returncode == 0 and "bf16 (accelerate config)" in done.stdout, done.stderr
    assert (run_in.folder / "lora" / "adapter_model.safetensors").exists()
    refused = run_in(*launch("deepspeed_zero3", "bf16"), *job, "output_dir=resnet")
    assert refused.returncode and "is a BatchNorm" in refused.stderr


@pytest.mark.parametrize(
    "pair", ["average.ema=0.99", "average.soup=uniform", "loss.l2_sp=0.01", "distill.teacher=somewhere"]
)
def test_what_reads_whole_weights_is_refused(pair, monkeypatch):
    recipe = load_recipe("digits", pair)
    refuse_sharding(recipe)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=f"{pair.partition('=')[0].removesuffix('.teacher')}: reads whole weights"):
        refuse_sharding(recipe)


def test_weights_that_are_whole_stay_as_they_are():
    """Also tied ones; of ZeRO-2, which shards none, or of a part that was left out."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gather_weights(model)
    assert model[1].weight is model[0].weight and not model[0].bias.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


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
