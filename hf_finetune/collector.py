"""Python's garbage collector, kept out of the way while the command imports its libraries.

To import torch and transformers is to make a million objects, none of them garbage; the collector looks at them again
and again, for a sixth of the time to the first step. Only the command does this, whose process is its own: `finetune()`
in somebody's program leaves the collector alone.
"""

from __future__ import annotations

import gc

_SELDOM = 100_000  # new objects between two looks, in place of Python's hundreds
_usual: list[tuple[int, int, int]] = []


def look_seldom() -> None:
    """Until a model is loaded, or for good where none is."""
    if not _usual and gc.isenabled():
        _usual.append(gc.get_threshold())
        gc.set_threshold(_SELDOM)


def look_as_usual() -> None:
    """A model is loaded: what there is now stays, and is not looked at again; nothing without `look_seldom`."""
    if _usual:
        gc.freeze()
        gc.set_threshold(*_usual.pop())
