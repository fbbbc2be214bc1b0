"""Ctrl-C and SIGTERM while a run goes on: the step is finished and saved; a second Ctrl-C stops at once.

Schedulers send SIGTERM some time before they take a machine away, people press Ctrl-C. Both are answered with one exit
code, by which a script knows that the same command goes on from here.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from hf_finetune.errors import EXIT_AGAIN
from hf_finetune.orphans import end_with

EXIT_STOPPED = EXIT_AGAIN
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_PRESS = 2.0  # seconds: torchrun hands on the Ctrl-C that the terminal has sent to its processes already


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and did; the same command goes on.

    Args:
        by: name of the signal.
        words: where it stopped and what is saved; empty outside of training.
    """

    def __init__(self, by: str, words: str = "") -> None:
        self.by = by
        super().__init__(f"stopped by {by}{f' {words}' if words else ''}")


class Request:
    """The signals that this process has heard since it listens."""

    def __init__(self) -> None:
        self.by: str | None = None  # the first one's name
        self.finishing = False  # whether there is a step to be finished: else a signal stops at once
        self._at = 0.0
        self._process = os.getpid()

    def heard(self, number: int, frame: Any) -> None:
        """The handler: note the first signal, or stop where there is nothing to finish.

        Raises:
            Stopped: outside of training steps.
            KeyboardInterrupt: the second Ctrl-C.
        """
        if os.getpid() != self._process:  # a forked child, which has inherited this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.by is not None:
            if number == signal.SIGINT and not self._same_press():
                raise KeyboardInterrupt
            return  # SIGTERM comes from machines, which tend to repeat themselves; SIGKILL is there for the impatient
        self.by, self._at = signal.Signals(number).name, time.monotonic()
        if not self.finishing:
            raise Stopped(self.by)
        if int(os.environ.get("RANK", "0")) == 0:
            # Not print: the signal may have come in the middle of one.
            _write(f"\n{self.by}: stopping when this step is done and saved; Ctrl-C stops at once.\n")

    def _same_press(self) -> bool:
        return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._at < _ONE_PRESS


_current: Request | None = None


def current() -> Request:
    """What was heard; where nobody listens, nothing ever is."""
    return Request() if _current is None else _current


@contextmanager
def listening() -> Iterator[None]:
    """Hear SIGINT and SIGTERM inside, in the main thread; inside of another `listening` nothing changes.

    A signal that was ignored before (`nohup`, a job in a script's background) stays ignored.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _current = Request()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in heard:
            signal.signal(number, _current.heard)
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
        _current = None


@contextmanager
def finishing() -> Iterator[None]:
    """Training steps inside: a signal waits until one is done and whoever takes them asks `current().by`."""
    request = current()
    request.finishing = True
    try:
        yield
    finally:
        request.finishing = False


def deaf_worker(init: Any) -> Any:
    """A loader worker's `worker_init_fn` in which signals are left to the process that the worker loads for: this one.

    Ctrl-C and schedulers signal all processes at once. A worker that ends at that would break the step that its main
    process finishes. A worker that hears nothing ends with that process, however it ends.

    Args:
        init: the `worker_init_fn` that is called after it, or None.
    """
    return partial(_deafen, init, os.getpid())


def deaf() -> None:
    """Hear no signal any more: of a process that ends, or whose work another one ends."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _deafen(init: Any, parent: int, worker: int) -> None:
    deaf()
    end_with(parent)
    if init is not None:
        init(worker)


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())
