"""A process that hangs, while the others of the run wait for it: after some time each says where it is, and all end.

Left to itself such a run ends at `training.ddp_timeout`, with a message of the waiting processes, which are not at
fault. Here all of them write the stacks of their threads shortly before that, also the one that hangs; then they end,
so that a launcher with restarts (`torchrun --max-restarts`) goes on from the last checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer

EXIT_HANGING = 124  # as of timeout(1)
_SHARE = 0.9  # of ddp_timeout
_OTHERS = 0.05  # of ddp_timeout, for the others to come as far


class Watchdog:
    """A thread that looks whether this process still gets on.

    Args:
        timeout: seconds after which a process that waits for another one gives up.
        process: number of this one.
        processes: of the run.
    """

    def __init__(self, timeout: float, process: int, processes: int) -> None:
        self.limit, self.grace = _SHARE * timeout, min(30.0, _OTHERS * timeout)
        self.name = f"process {process} of {processes}"
        self._last, self._where = time.monotonic(), "the beginning"
        self._armed = -float("inf")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def beat(self, where: str | None = None) -> None:
        """This process gets on.

        Args:
            where: it is, in words.
        """
        self._last, self._where = time.monotonic(), where or self._where
        if self._last - self._armed > self.limit / 20:
            # Should the thread below not come to run, because a library holds Python's lock: this one needs none. It
            # ends with 1, and must not come first where the last beat was a twentieth after this one.
            self._armed = self._last
            faulthandler.dump_traceback_later(1.05 * self.limit + 2 * self.grace + 1, exit=True, file=_stream())

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.limit / 20)):
            idle = time.monotonic() - self._last
            if idle < self.limit:
                continue
            told_at = self._last
            with suppress(OSError, ValueError, AttributeError):  # a log that takes nothing: it must end all the same
                self._tell(idle)
            self._done.wait(self.grace)
            if self._last == told_at and not self._done.is_set():
                os._exit(EXIT_HANGING)

    def _tell(self, idle: float) -> None:
        stream = _stream()
        stream.write(
            f"\n{self.name} has not got on for {idle:.0f} s, since {self._where}: it hangs, or waits for one that does "
            "(training.ddp_timeout says how long that may last). Its threads:\n"
        )
        stream.flush()
        faulthandler.dump_traceback(file=stream, all_threads=True)
        stream.write(f"{self.name} ends now; the same command goes on from the last checkpoint.\n")
        stream.flush()


class Heartbeat(TrainerCallback):
    """Tells the watchdog whatever the Trainer does."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step begins."""
        beat(f"step {state.global_step}")

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One of accumulated batches is done."""
        beat()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done."""
        beat(f"step {state.global_step}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A batch is evaluated."""
        beat(f"an evaluation at step {state.global_step}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint is written."""
        beat(f"the checkpoint of step {state.global_step}")


_current: Watchdog | None = None


def beat(where: str | None = None) -> None:
    """This process gets on; where nobody watches, nothing happens."""
    if _current is not None:
        _current.beat(where)


@contextmanager
def watching(trainer: FinetuneTrainer) -> Iterator[None]:
    """Inside, a process of several that hangs ends the run; a single one is waited for by nobody.

    Args:
        trainer: its arguments say how many processes there are, and how long they wait for each other.
    """
    global _current
    args = trainer.args
    if args.world_size == 1 or _current is not None:
        yield
        return
    if not any(isinstance(callback, Heartbeat) for callback in trainer.callback_handler.callbacks):
        trainer.add_callback(Heartbeat())
    _current = Watchdog(args.ddp_timeout, args.process_index, args.world_size)
    _current.start()
    try:
        yield
    finally:
        _current.stop()
        _current = None


def _stream() -> Any:
    """Standard error with a file behind it, which faulthandler needs."""
    return sys.stderr if hasattr(sys.stderr, "fileno") and not sys.stderr.closed else sys.__stderr__
