"""One CPU process computes on every core, unless the user said otherwise."""

import os
import subprocess
import sys

import pytest

from hf_finetune.training.threads import cores

pytestmark = pytest.mark.slow

SCRIPT = """
import torch
before = torch.get_num_threads()
from hf_finetune.training.threads import use_every_core
use_every_core()
print("threads", before, torch.get_num_threads())
"""


def _launched(tmp_path, *options, **environment):
    script = tmp_path / "threads.py"
    script.write_text(SCRIPT)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "ACCELERATE_"))}
    # Without this accelerate would take a GPU that the machine may have.
    plain["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, str(script)]
    done = subprocess.run(command, env={**plain, **environment}, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split("threads")[1].split()]


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_accelerate_launch_does_not_leave_all_cores_but_one_idle(tmp_path):
    before, after = _launched(tmp_path)
    assert before == 1, "accelerate no longer sets one thread: drop use_every_core"
    assert after == cores()


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ((), {"OMP_NUM_THREADS": "1"}),
        pytest.param(("--num_cpu_threads_per_process", "1"), {}, marks=pytest.mark.long),
    ],
)
def test_a_number_of_threads_that_the_user_chose_is_kept(tmp_path, options, environment):
    assert _launched(tmp_path, *options, **environment) == [1, 1]
