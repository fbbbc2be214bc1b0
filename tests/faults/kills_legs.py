"""Legs of a run: started from a process that has imported everything, killed or signalled at a chosen moment.

Importing torch takes seconds, a leg of a tiny model less than that. So one process imports all that a run imports, with
one thread, and forks a child for each leg, which calls the command's own entry point. Some legs go through the true
command line, to see that a fork makes no difference.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Before any import of the libraries, which read these once.
QUIET = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
_LOOK = 0.0003  # seconds between two looks at what a leg is doing
_LONGEST = 120.0  # seconds of a leg, above which it hangs


class Leg:
    """A started process.

    Args:
        pid: of it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.began = time.monotonic()
        self.status: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has; then `status` is its exit code, or minus the signal that killed it."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it hangs; it is killed.
        """
        while not self.ended:
            if time.monotonic() - self.began > _LONGEST:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"a leg took more than {_LONGEST:g} s")
            time.sleep(0.005)
        assert self.status is not None
        return self.status

    def strike(self, when: Callable[[], bool], delay: float, number: signal.Signals) -> bool:
        """Send a signal a moment after `when`; whether it was still running then."""
        while not when():
            if self.ended:
                return False
            time.sleep(_LOOK)
        time.sleep(delay)
        if self.ended:
            return False
        os.kill(self.pid, number)
        return True


def forked(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Leg:
    """A leg in a fork of this process.

    Args:
        arguments: of `hf-finetune`.
        environment: added to this process's.
        log: what it prints is added to it.
    """
    sys.stdout.flush()
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(arguments, environment, log, tell)
    os.close(tell)
    os.read(ready, 1)
    os.close(ready)
    return Leg(pid)


def _child(arguments: Sequence[str], environment: Mapping[str, str], log: Path, tell: int) -> None:
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        _reseed()
        os.write(tell, b"x")
        os.close(tell)
        from hf_finetune.cli import main

        code = main(arguments)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _reseed() -> None:
    """Processes do not share their random numbers: what nobody seeds must show."""
    import numpy as np
    import torch

    random.seed()
    np.random.seed(int.from_bytes(os.urandom(4), "little"))
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))


def started(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Leg:
    """A leg through the true command line: `python -m hf_finetune.run`."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "hf_finetune.run", *arguments[1:]],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    process.returncode = 0  # waited for here, not there
    return Leg(process.pid)


def import_what_a_run_imports(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
    """Do a whole run in a child, and import here what it has imported there; no thread is started.

    Args:
        arguments: of a run that ends well.
        environment: of it.
        folder: scratch.
    """
    listed = folder / "modules"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            file = os.open(folder / "imports.log", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.environ.update(environment)
            from hf_finetune.cli import main

            code = main(arguments)
            listed.write_text("\n".join(name for name in list(sys.modules) if "__main__" not in name))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"the first run failed:\n{(folder / 'imports.log').read_text()}")
    for name in listed.read_text().splitlines():
        if name not in sys.modules:
            with suppress(Exception):  # what a package makes for itself cannot be imported by name
                importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if len(threads) > 1 or threading.active_count() > 1:
        print(f"warning: threads before the first fork: {threads}, {threading.enumerate()}", flush=True)
