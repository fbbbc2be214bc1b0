"""What goes wrong with machines during a run, as errors for people: disks, memory, other processes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.cache_home import cache_home
from hf_finetune.disk import DiskError, of_a_disk
from hf_finetune.errors import TransientError, UserError
from hf_finetune.training.checkpoints import newest_whole
from hf_finetune.training.out_of_memory import is_out_of_memory, out_of_memory

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

# gloo's, NCCL's and the store's words for a process that is not there any more.
_LOST = re.compile(
    r"Connection closed by peer|Connection reset by peer|Timed out waiting|Application timeout|Broken pipe|"
    r"ncclRemoteError|ncclSystemError|NCCL communicator was aborted|recvValue failed|Connection refused|"
    r"failed to (recv|read|write)|Socket Timeout"
)
_OF_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker")


class LostProcess(TransientError):
    """Another process of the run has ended, or does not answer."""


@contextmanager
def told(recipe: Recipe, checkpoints: Path) -> Iterator[None]:
    """A run inside: what its machine does to it becomes a UserError.

    Args:
        recipe: of the run.
        checkpoints: its folder of them.

    Raises:
        DiskError: a disk is full, read-only or gone.
        OutOfMemory: memory does not suffice.
        LostProcess: of several processes another one is lost.
    """
    try:
        yield
    except UserError as fault:
        if _OF_A_WORKER.match(str(fault)) is None:
            raise
        raise _said_by_a_worker(fault) from None
    except Exception as fault:
        found = _in_words(fault, recipe, checkpoints)
        if found is None:
            raise
        raise found from fault


def _said_by_a_worker(fault: UserError) -> UserError:
    """The words of a loader's worker, without the traceback that torch puts before them."""
    return type(fault)(str(fault).rpartition(f"{type(fault).__name__}: ")[2].strip())


def _in_words(fault: Exception, recipe: Recipe, checkpoints: Path) -> UserError | None:
    if is_out_of_memory(fault):
        return out_of_memory(fault, recipe, _kept(checkpoints))
    disk = of_a_disk(fault, [checkpoints.parent, cache_home(), *_other_places()])
    if disk is not None:
        return DiskError(f"{disk} {_kept(checkpoints)}")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and isinstance(fault, RuntimeError) and _LOST.search(str(fault)):
        return LostProcess(
            f"Process {os.environ.get('RANK', '0')} of {processes} has lost another process of this run "
            f"({str(fault).strip().splitlines()[0]}). What that one said last tells why; one that said nothing was "
            f"killed from outside: by a lack of memory (dmesg), or by the scheduler. {_kept(checkpoints)} "
            "`torchrun --max-restarts=3` starts all processes again by itself."
        )
    return None


def _other_places() -> list[Path]:
    """Where libraries write."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return [Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")), home, Path(tempfile.gettempdir())]


def _kept(checkpoints: Path) -> str:
    kept = None
    with suppress(OSError):
        kept = newest_whole(checkpoints)
    return "" if kept is None else f"The same command goes on from {kept}."
