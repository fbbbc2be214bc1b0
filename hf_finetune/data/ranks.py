"""Several processes on one machine share the cache of data sets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch.distributed as dist


@contextlib.contextmanager
def first_on_each_machine() -> Iterator[None]:
    """Let one process of each machine go through the block before the others.

    It fills the cache and the others read from it. Where it fails, the others go on and meet the same error
    themselves, so that none waits for ever. Without a process group there is no waiting: every process does the work,
    with equal results.
    """
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if together and not is_first:
        dist.barrier()
    try:
        yield
    finally:
        if together and is_first:
            dist.barrier()
