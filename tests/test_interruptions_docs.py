"""The scripts of docs/interruptions.md: run with stand-ins for what a cluster has."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
import yaml
from docs_pages import blocks

from hf_finetune.stopping import EXIT_STOPPED

PAGE = "docs/interruptions.md"
ALONE, SEVERAL = (block.body for block in blocks(PAGE) if block.language == "bash")


@pytest.fixture
def cluster(tmp_path):
    """A folder of programs that stand in for a cluster's; what is asked of scontrol is written down."""
    programs = {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >>{tmp_path}/asked; [ "$1" = show ] && echo node1',
        "hf-finetune": 'exit "$CODE"',
        "torchrun": f"""trap 'exit 1' TERM
touch {tmp_path}/started
[ -n "$DONE" ] && mkdir -p "$SCRATCH/cifar10" && touch "$SCRATCH/cifar10/metrics.json" && exit 0
sleep 20 & wait""",
    }
    (tmp_path / "bin").mkdir()
    for name, body in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)

    def start(script, **environment):
        path = tmp_path / "job.sh"
        path.write_text(script)
        places = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "SCRATCH": str(tmp_path)}
        job = {"SLURM_JOB_ID": "17", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
        return subprocess.Popen(["bash", str(path)], env={**os.environ, **places, **job, **environment})

    def asked():
        return (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []

    start.asked, start.folder = asked, tmp_path
    return start


@pytest.mark.parametrize(("code", "again"), [(EXIT_STOPPED, True), (0, False), (2, False), (1, False)])
def test_a_stopped_run_is_queued_again_and_no_other(cluster, code, again):
    job = cluster(ALONE, CODE=str(code))
    assert job.wait(30) == code
    assert cluster.asked() == (["requeue 17"] if again else [])


@pytest.mark.parametrize("done", [False, True])
def test_several_machines_are_asked_to_stop_and_queued_again_unless_the_run_is_done(cluster, done):
    job = cluster(SEVERAL, **({"DONE": "yes"} if done else {}))
    while not (cluster.folder / "started").exists():
        assert job.poll() is None
        time.sleep(0.02)
    if not done:
        time.sleep(0.2)  # until the stand-in waits; the script waits for it at any rate
        job.send_signal(signal.SIGTERM)
    assert job.wait(30) == (0 if done else 1)
    assert [line for line in cluster.asked() if "requeue" in line] == ([] if done else ["requeue 17"])


def test_the_job_of_kubernetes_answers_the_exit_codes():
    job = yaml.safe_load(next(block.body for block in blocks(PAGE) if block.language == "yaml"))
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # else there may be no podFailurePolicy
    rules = job["spec"]["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"Ignore": [EXIT_STOPPED], "FailJob": [2]}
    names = {container["name"] for container in pod["containers"]}
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == names
    assert pod["containers"][0]["command"][0] == "hf-finetune"  # no shell between it and the signal
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
