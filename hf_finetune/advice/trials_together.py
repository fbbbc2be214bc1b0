"""Several processes that go through the same trials: none goes on to the next while another is still in this one."""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import count

from hf_finetune.errors import UserError

_GRACE = 60.0  # seconds in which the others must have failed as well
_turn = count()


def several_processes() -> bool:
    """Whether a launcher has started more than this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def told_by_all(reason: str | None) -> str | None:
    """Wait until every process has ended this trial; what made it fail is the same for all.

    A collective would not do: a process that has failed alone would meet the others in the middle of the trial's own
    ones. So each leaves a word in the store that the launcher's processes have in common.

    Args:
        reason: why this process's trial failed; None where it did not.

    Returns:
        the first process's reason, so that all keep the same words; None where the trial is finished.

    Raises:
        UserError: some have failed and others have not: nothing can go on.
        LostProcess: the launcher, or a process, has ended meanwhile; the same command goes on.
    """
    if not several_processes():
        return reason
    from torch import distributed
    from torch.distributed.distributed_c10d import _get_default_store

    from hf_finetune.training.told import LostProcess

    if not distributed.is_initialized():  # failed before they knew of each other: then nothing can be agreed on
        if reason is not None:
            raise UserError(reason)
        return None
    store = _get_default_store()
    turn, rank, size = next(_turn), distributed.get_rank(), distributed.get_world_size()
    keys = [f"trial/{turn}/{other}" for other in range(size)]
    try:
        store.set(f"trial/{turn}/{rank}", f"failed {reason}" if reason is not None else "finished")
        store.wait(keys, timedelta(seconds=_GRACE)) if reason is not None else store.wait(keys)
        told = [store.get(key).decode() for key in keys]
    except distributed.DistNetworkError as fault:  # who keeps the store is not there any more
        raise LostProcess(
            f"Process {rank} of {size} cannot reach the others between two trials ({fault}): their launcher has ended, "
            "or was killed. Finished trials stay; the same command goes on with the rest."
        ) from None
    except distributed.DistStoreError:
        alone = f"has failed alone: {reason}" if reason is not None else "waits for another that does not end this one"
        raise UserError(f"The trials cannot go on: process {rank} of {size} {alone}") from None
    failed = [words.removeprefix("failed ") for words in told if words != "finished"]
    if failed and len(failed) < size:
        raise UserError(f"{len(failed)} of {size} processes have failed, so that the trials cannot go on: {failed[0]}")
    return failed[0] if failed else None
