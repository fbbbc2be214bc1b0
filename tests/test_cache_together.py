"""Kept features in several processes: they wait for another run together, and have one entry."""

from __future__ import annotations

import threading
import time

import pytest
from filelock import FileLock
from test_cache_runs import JOB

from hf_finetune import prefix_store as store

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

WAITING = """
import sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as distributed
from filelock import FileLock
from hf_finetune.training import prefix_split
prefix_split._PATIENCE = 1.0
distributed.init_process_group("gloo", timeout=timedelta(seconds=5))
distributed.barrier()
Path(f"ready-{distributed.get_rank()}").touch()
lock = FileLock("lock")
prefix_split.take_lock(lock)
print(f"process {distributed.get_rank()}: {lock.is_locked}", flush=True)
distributed.barrier()
lock.release()
"""


@pytest.mark.long
def test_all_wait_for_another_run_longer_than_one_collective_may_last(run_in):
    run_in.folder.mkdir(exist_ok=True)
    (run_in.folder / "job.py").write_text(WAITING)
    lock = FileLock(run_in.folder / "lock", thread_local=False)
    lock.acquire()

    def other_run():
        for _ in range(1200):
            if (run_in.folder / "ready-1").exists():
                break
            time.sleep(0.1)
        time.sleep(9)
        lock.release()

    thread = threading.Thread(target=other_run)
    thread.start()
    found = run_in("torchrun", "--standalone", "--nproc_per_node", "2", "job.py", timeout=150)
    thread.join()
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("another run is computing these features; waiting for it") == 1
    assert "process 0: True" in found.stdout and "process 1: False" in found.stdout


@pytest.mark.long
def test_processes_that_measured_otherwise_have_one_entry(run_in):
    run_in.folder.mkdir(exist_ok=True)
    (run_in.folder / "job.py").write_text(
        "import os, sys\n"
        "from hf_finetune.training import prefix_key\n"
        "prefix_key.library_in_use = lambda: 'of process ' + os.environ['RANK']\n"
        "from hf_finetune.cli import main\n"
        "sys.exit(main(['train', *sys.argv[1:]]))\n"
    )
    found = run_in("torchrun", "--standalone", "--nproc_per_node", "2", "job.py", *JOB, timeout=200)
    assert found.returncode == 0, found.stderr
    assert len(store.entries()) == 3
