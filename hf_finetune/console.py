"""One rank speaks: the only place that prints to the user."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

# What a terminal obeys rather than shows (ESC and its relatives, a lone carriage return), what turns the order of
# letters around, and half characters, which no encoding takes.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LIKE_A_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # letters of a secret that is looked for: a shorter one is part of ordinary words


def is_main_process() -> bool:
    """Whether this is rank 0, as the launcher's environment says (known before torch is imported)."""
    return int(os.environ.get("RANK", "0")) == 0


_warned: set[str] | None = None  # inside of `muted`: the warnings that were told


def say(text: str = "") -> None:
    """Print a line for the user on rank 0, flushed, so that it keeps its place among progress bars."""
    if is_main_process() and not is_muted():
        _print(inert(text), sys.stdout)


def warn(text: str) -> None:
    """Print a warning on rank 0 to standard error."""
    if _warned is not None:
        if text in _warned:
            return
        _warned.add(text)
    if is_main_process():
        _print(f"warning: {inert(text)}", sys.stderr)


def complain(text: str) -> None:
    """Print why the command ends to standard error, on the process that asks; nobody's log changes the exit code."""
    with suppress(OSError, ValueError):
        print(inert(text), file=sys.stderr, flush=True)


@contextmanager
def muted(warned: set[str]) -> Iterator[None]:
    """Inside, `say` is silent and bars stay away: of runs that are part of something larger, which speaks for them.

    Args:
        warned: warnings that were told before; each is told once, and added.
    """
    global _warned
    before, _warned = _warned, warned
    try:
        yield
    finally:
        _warned = before


def is_muted() -> bool:
    """Whether a larger work speaks for the run that asks."""
    return _warned is not None


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # nobody reads any more: the caller decides
        raise
    except OSError:  # a log on a full disk: no reason to lose a run
        return


def leave(code: int) -> NoReturn:
    """End the process as `sys.exit` does, without Python first taking every module apart.

    With torch, transformers and triton loaded that takes one and a half to two seconds, in which nothing is left to
    do: what was registered to run at the end runs here, and what is open is flushed.
    """
    _flush()
    at_work = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if at_work or "torch" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def _flush() -> None:
    """Write what still waits; a stream that does not take it is let go: Python would try again, and end with 120."""
    for name in ("stdout", "stderr"):
        with suppress(OSError, ValueError, AttributeError):  # a full disk, a closed pipe, a closed stream, none at all
            getattr(sys, name).flush()
            continue
        setattr(sys, name, None)


def inert(text: str) -> str:
    """Text as a terminal or a log may have it.

    Names come from strangers' files: what a terminal would obey is written out (`\\x1b`), and so is half a character.
    Tokens of the Hub, the one in the environment and whatever looks like one, become `hf_***`.
    """
    for name in TOKENS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "hf_***")
    text = _LIKE_A_TOKEN.sub("hf_***", text)
    return _OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)
