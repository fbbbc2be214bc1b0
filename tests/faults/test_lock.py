"""Two runs never share a folder, and a run that was killed does not keep it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow
JOB = (
    *("recipe=digits", "data.max_train_samples=300", "data.max_eval_samples=40", "training.num_train_epochs=200"),
    *("precision=no", "training.per_device_train_batch_size=8", "training.save_strategy=steps"),
    *("training.eval_strategy=steps", "training.eval_steps=20", "output_dir=run", "evaluation.bootstrap=0"),
)


@pytest.fixture
def start(run_in):
    """Start the run: start(*overrides) -> its process."""
    started = []

    def begin(*more, output=subprocess.DEVNULL):
        run_in.folder.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "hf_finetune.run", *JOB, *more]
        started.append(
            subprocess.Popen(
                command, cwd=run_in.folder, env=environment, stdout=output, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def going_on(run_in, start):
    """The same, when it has written a checkpoint."""

    def begin(*more):
        process = start(*more)
        while not list((run_in.folder / "run" / "checkpoints").glob("checkpoint-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        return process

    return begin


def test_a_second_run_is_refused_and_the_first_is_not_disturbed(run_in, going_on):
    first = going_on()
    before = {path.name for path in (run_in.folder / "run").iterdir()}
    result = run_in("python", "-m", "hf_finetune.run", *JOB)
    assert result.returncode == 75 and "Another process is running in run" in result.stderr
    assert "Traceback" not in result.stderr
    assert first.poll() is None
    assert {path.name for path in (run_in.folder / "run").iterdir()} >= before - {"checkpoints"}


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_keeps_no_lock(run_in, start, going_on, workers):
    """Nor do its loader's workers, which have inherited its open files and outlive it for some seconds."""
    first = going_on(f"training.dataloader_num_workers={workers}")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert (run_in.folder / "run" / ".lock").exists()  # the file is there, and nobody holds it
    again = start(f"training.dataloader_num_workers={workers}", output=subprocess.PIPE)
    said = next((line for line in again.stdout if "Continuing from" in line), None)
    assert said is not None, again.stderr.read()
