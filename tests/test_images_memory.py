"""Freed memory stays with the process where the CPU trains."""

import subprocess
import sys

import pytest

COMMAND = """
import resource, sys, torch
from hf_finetune.training.memory import keep_freed_memory
torch.set_num_threads(1)
told = keep_freed_memory() if sys.argv[1] == "keep" else False
def work():
    for _ in range(20):
        torch.ones(16 * 2**20)  # 64 MB
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_blocks_that_are_freed_are_not_fetched_again():
    faults = {}
    for way in ("keep", "leave"):
        answer = subprocess.run([sys.executable, "-c", COMMAND, way], capture_output=True, text=True, check=True)
        told, count = answer.stdout.split()
        if way == "keep" and told == "False":
            pytest.skip("a GPU, or another allocator")
        faults[way] = int(count)
    assert faults["keep"] * 20 < faults["leave"]
