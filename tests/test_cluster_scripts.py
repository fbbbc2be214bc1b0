"""The scripts for clusters: SLURM's with stand-ins for its programs, Kubernetes' as its own rules have it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from conftest import REPOSITORY

FOLDER = REPOSITORY / "accelerate_configs" / "cluster"
SLURM = FOLDER / "slurm.sh"


@pytest.fixture
def start(tmp_path):
    """Start the SLURM script; what is asked of scontrol and torchrun is written down."""
    programs = {
        "srun": f'echo "$SRUN_CPUS_PER_TASK" >{tmp_path}/cores; shift; exec "$@"',
        "scontrol": f'echo "$@" >>{tmp_path}/asked; [ "$1" = show ] && echo node1 && echo node2',
        "torchrun": f"""trap 'exit 1' TERM
echo "$@" >{tmp_path}/torchrun; touch {tmp_path}/started
[ -n "$DONE" ] && touch {tmp_path}/run/metrics.json && exit 0
sleep 20 & wait""",
    }
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").mkdir()
    for name, body in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    job = {"SLURM_JOB_ID": "170001", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "4"}
    job["SLURM_CPUS_PER_TASK"] = "64"

    def run(*arguments, **environment):
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        values = {**os.environ, "PATH": path, "HF_HOME": "/shared", **job, **environment}
        return subprocess.Popen(["bash", str(SLURM), *arguments], env=values, stderr=subprocess.PIPE, text=True)

    run.folder = tmp_path
    return run


@pytest.mark.parametrize("done", [False, True])
def test_slurms_job_is_queued_again_unless_the_run_is_done(start, done):
    job = start("recipe=cifar10", f"output_dir={start.folder / 'run'}", **({"DONE": "yes"} if done else {}))
    while not (start.folder / "started").exists():
        assert job.poll() is None
        time.sleep(0.02)
    if not done:
        time.sleep(0.2)
        job.send_signal(signal.SIGTERM)
    assert job.wait(30) == (0 if done else 1)
    asked = (start.folder / "asked").read_text().splitlines()
    assert [line for line in asked if "requeue" in line] == ([] if done else ["requeue 170001"])
    given = (start.folder / "torchrun").read_text().split()
    assert given[-3:] == ["hf_finetune/run.py", "recipe=cifar10", f"output_dir={start.folder / 'run'}"]
    assert "--nproc-per-node 4" in " ".join(given) and "--rdzv-endpoint node1:30001" in " ".join(given)
    assert_torchrun_takes(given)
    assert (start.folder / "cores").read_text() == "64\n"  # of sbatch's --cpus-per-task srun knows nothing


def test_slurms_job_says_where_output_dir_belongs(start):
    job = start("output_dir=x", "recipe=cifar10")
    assert "the last argument must be output_dir=FOLDER" in job.communicate(timeout=30)[1]
    assert job.returncode == 2


def test_the_pods_of_kubernetes_find_each_other():
    service, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    spec, name = job["spec"], job["metadata"]["name"]
    pod = spec["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert pod["restartPolicy"] == "Never"  # else there may be no podFailurePolicy
    [container] = pod["containers"]
    given = assert_torchrun_takes(container["command"][1:])
    assert given.rdzv_endpoint == f"{name}-0.{pod['subdomain']}:29500"  # how an indexed job names its first pod
    assert int(given.nnodes) == spec["parallelism"]
    assert int(given.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert given.module and importlib.util.find_spec(given.training_script)
    assert given.shutdown_timeout < pod["terminationGracePeriodSeconds"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def assert_torchrun_takes(words):
    from torch.distributed.run import get_args_parser

    return get_args_parser().parse_args(words)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    found = subprocess.run(["shellcheck", str(SLURM)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
