"""A few of the kills of kills.py, through the script itself: it must find that they change nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kills.py"


@pytest.mark.parametrize(
    "only",
    [
        pytest.param("image full steps", marks=pytest.mark.long),
        pytest.param("text lp_ft epochs", marks=pytest.mark.long),
        pytest.param("image head epochs", marks=pytest.mark.slow),
    ],
)
def test_killed_and_stopped_runs_end_equal(tmp_path, only):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "4", "--signals", "2", "--only", only, "--json", str(figures),
         "--folder", str(tmp_path / "runs")],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["kills"]["blows"] >= 4 and found["kills"]["places"]["writing a checkpoint"] >= 1
    assert found["signals"]["blows"] >= 2 and found["faults"] == []


@pytest.mark.slow
def test_the_comparison_sees_a_difference(tmp_path):
    """One weight, one score, one line of the log, one number of the optimizer: else it would prove nothing."""
    sys.path.insert(0, str(SCRIPT.parent))
    import shutil

    import torch
    from cache_samples import run
    from kills_outcome import differences, newest
    from safetensors.torch import load_file, save_file

    steps = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 3, "eval_steps": 3}
    whole = run(tmp_path, "vit", "full", "whole", training=steps).path
    assert differences(whole, run(tmp_path, "vit", "full", "again", training=steps).path) == []

    def changed(change):
        other = tmp_path / "other"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(whole, other)
        change(other)
        return differences(whole, other)

    def weight(folder):
        tensors = load_file(folder / "model.safetensors")
        name = next(iter(tensors))
        tensors[name].view(-1)[0] += 1e-6
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def score(folder):
        path = folder / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["train"]["loss"] += 1e-12
        metrics["train"]["seconds"] += 100
        path.write_text(json.dumps(metrics))

    def log(folder):
        path = folder / "about.json"
        about = json.loads(path.read_text())
        about["history"].pop(1)
        path.write_text(json.dumps(about))

    def moment(folder):
        path = newest(folder / "checkpoints") / "optimizer.pt"
        state = torch.load(path, weights_only=True)
        state["state"][0]["exp_avg"].view(-1)[0] += 1e-6
        torch.save(state, path)

    def generator(folder):
        path = newest(folder / "checkpoints") / "rng_state.pth"
        state = torch.load(path, weights_only=False)
        state["cpu"][-1] += 1
        torch.save(state, path)

    assert changed(weight) == ["model.safetensors"]
    assert len(found := changed(score)) == 1 and found[0].startswith("metrics.json.train.loss")
    assert changed(log) != []
    assert [line.rpartition("/")[2] for line in changed(moment)] == ["optimizer.pt"]
    assert [line.rpartition("/")[2] for line in changed(generator)] == ["rng_state.pth"]
