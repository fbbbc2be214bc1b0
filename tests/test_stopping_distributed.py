"""Of several processes any one may be asked to stop: all stop behind the same step, and go on as if they had not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import REPOSITORY
from safetensors.numpy import load_file

from hf_finetune.training import checkpoints

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SCRIPT = str(REPOSITORY / "hf_finetune" / "run.py")
JOB = (
    "recipe=digits", "model.checkpoint=package:digits-vit", "strategy=full", "data.max_train_samples=200",
    "data.max_eval_samples=40", "training.num_train_epochs=12", "training.per_device_train_batch_size=4",
    "training.logging_steps=7", "evaluation.bootstrap=10", "precision=no",
)  # fmt: skip
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT, *JOB)


def start(folder, name):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*TORCHRUN, f"output_dir={name}"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def whole(folder, name):
    process = start(folder, name)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return out


def rank(launcher, number):
    """The process of that rank."""
    for child in psutil.Process(launcher.pid).children():
        if child.environ().get("RANK") == str(number):
            return child.pid
    raise AssertionError(f"no rank {number}")


@pytest.mark.parametrize(
    "who", ["rank 1", *(pytest.param(who, marks=pytest.mark.long) for who in ("rank 0", "launcher"))]
)
def test_all_stop_behind_the_same_step_and_go_on_equal(tmp_path, who):
    whole(tmp_path, "whole")
    launcher = start(tmp_path, "stopped")
    folder = tmp_path / "stopped" / "checkpoints"
    while checkpoints.newest_step(folder) < 0:
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.01)
    os.kill(launcher.pid if who == "launcher" else rank(launcher, int(who[-1])), signal.SIGTERM)
    out, err = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    told = re.search(r"stopped by (?:SIGTERM|a signal to another process) after step (\d+) of (\d+)", err)
    assert told is not None, out + err
    saved = folder / f"checkpoint-{told[1]}"
    assert checkpoints.damage(saved) is None and checkpoints.newest_whole(folder) == saved
    assert int(told[1]) < int(told[2])
    assert f"Continuing from {saved.relative_to(tmp_path)}" in whole(tmp_path, "stopped")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all((one[name] == other[name]).all() for name in one)
    logs = [(tmp_path / name / "about.json").read_text() for name in ("whole", "stopped")]
    losses = [re.findall(r'"loss": [0-9.e-]+', log) for log in logs]
    assert losses[0] == losses[1]
