"""One process on the CPU computes with every core, also under `accelerate launch`.

Without a GPU and with one process, accelerate 1.15 exports OMP_NUM_THREADS=1: training then runs on one core of many,
without a word.
"""

from __future__ import annotations

import os

import psutil
import torch

_OPTION = "num_cpu_threads_per_process"


def use_every_core() -> None:
    """Undo accelerate's single thread; a number of threads that the user chose, and several processes, are left."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if launched and alone and not torch.cuda.is_available() and not _chosen_by_the_user():
        torch.set_num_threads(cores())


def cores() -> int:
    """Physical cores that this process may use; a second thread on the same core does not speed up matrix products."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _chosen_by_the_user() -> bool:
    """Whether the launcher was itself given a number of threads; where its environment cannot be read, it was not."""
    try:
        launcher = psutil.Process(os.getppid())
        return "OMP_NUM_THREADS" in launcher.environ() or any(_OPTION in word for word in launcher.cmdline())
    except (psutil.Error, OSError):
        return False
