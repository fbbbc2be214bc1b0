"""Two processes give what one gives at the same global batch; one rank speaks; each sample is evaluated once."""

import json
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from safetensors.numpy import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SCRIPT = str(REPOSITORY / "hf_finetune" / "run.py")
# 101 training rows: the last batch is short, so is the last evaluation batch (37 rows).
JOB = (
    "recipe=digits",
    # BatchNorm of the ResNet sees the batch of one process; a ViT has none.
    "model.checkpoint=package:digits-vit",
    "data.max_train_samples=101",
    "data.max_eval_samples=37",
    "training.num_train_epochs=2",
    "training.per_device_eval_batch_size=8",
    "evaluation.bootstrap=100",
    "precision=no",
    # Adam divides by the size of the gradient, so it turns float noise where that is 0 (the bias of a key) into steps.
    "training.optim=sgd",
    "training.learning_rate=0.05",
)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def whole(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return load_file(folder / "model.safetensors"), metrics, pd.read_parquet(folder / "predictions.parquet")


def assert_equal_runs(one, other):
    (weights, metrics, predictions), (weights2, metrics2, predictions2) = whole(one), whole(other)
    assert weights.keys() == weights2.keys()
    for name in weights:
        np.testing.assert_allclose(weights2[name], weights[name], rtol=1e-3, atol=2e-5, err_msg=name)
    assert metrics2["test"]["samples"] == metrics["test"]["samples"] == 37
    assert metrics2["test"]["accuracy"] == metrics["test"]["accuracy"]
    assert metrics2["validation"]["loss"] == pytest.approx(metrics["validation"]["loss"], rel=1e-4)
    assert list(predictions2["id"]) == list(predictions["id"])


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    subprocess.run(
        [sys.executable, SCRIPT, *JOB, "training.per_device_train_batch_size=16", "output_dir=run"],
        cwd=folder, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return folder / "run"


def test_two_processes_equal_one(one_process, run_in):
    result = run_in(
        "torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT, *JOB,
        "training.per_device_train_batch_size=8", "output_dir=run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("learning rate") == 1  # one rank speaks
    assert_equal_runs(one_process, run_in.folder / "run")


def test_accelerate_starts_two_processes_on_a_machine_without_a_gpu(one_process, run_in):
    """Left to itself this starts two independent runs into one folder."""
    result = run_in(
        "accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", free_port(), SCRIPT, *JOB,
        "training.per_device_train_batch_size=8", "output_dir=run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("learning rate") == 1
    assert_equal_runs(one_process, run_in.folder / "run")


@pytest.mark.long
def test_the_shipped_two_process_config_starts_two(one_process, run_in):
    config = str(REPOSITORY / "accelerate_configs" / "cpu_2proc.yaml")
    result = run_in(
        "accelerate", "launch", "--config_file", config, "--main_process_port", free_port(), SCRIPT, *JOB,
        "training.per_device_train_batch_size=8", "output_dir=run", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2 processes" in result.stdout
    assert_equal_runs(one_process, run_in.folder / "run")


def test_two_machines_over_loopback_equal_one(one_process, run_in):
    port = free_port()
    run_in.folder.mkdir()
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank),
             "--nproc_per_node", "1",
             "--master_addr", "127.0.0.1", "--master_port", port, SCRIPT, *JOB,
             "training.per_device_train_batch_size=8", "output_dir=run"],
            cwd=run_in.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert sum(out.count("learning rate") for out, _ in outputs) == 1
    assert_equal_runs(one_process, run_in.folder / "run")


def test_a_fault_is_told_once_and_every_rank_stops(run_in):
    result = run_in(
        "torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT, "recipe=digits", "traning.learning_rate=1"
    )
    assert result.returncode != 0
    assert result.stderr.count("training.learning_rate") == 1
