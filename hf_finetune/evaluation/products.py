"""Matrix products in fp32 by whichever of torch's two CPU libraries is faster here: MKL or oneDNN.

torch gives fp32 products to MKL, which on processors that are not Intel's does half of what they can. oneDNN computes
the same products, and does all they can, but torch asks it only where rounding to bf16 is allowed. Allowed is not
done: without AMX oneDNN computes them in fp32 all the same. Both are measured, speed and error, in a few
milliseconds; where oneDNN would round, or gains little, nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch

Library = Literal["MKL", "oneDNN"]

_GAIN = 1.25  # oneDNN must be so much faster: the last bits of a sum are others
_ERROR = 8.0  # times MKL's may oneDNN's largest error be; rounding to bf16 makes it some hundred times
_SHAPES = ((1024, 192, 768), (1024, 768, 192))
_held: list[Library] = []


@contextmanager
def fast_products(begun: str | None = None) -> Iterator[Library]:
    """Until the end of the block, fp32 products on the CPU by the faster library; inside another, nothing changes.

    Args:
        begun: what a run was begun with, "MKL" or "oneDNN": it has to go on alike.

    Yields:
        the library.
    """
    if _held:
        yield _held[0]
        return
    known: dict[str | None, Library] = {"MKL": "MKL", "oneDNN": "oneDNN" if _rounds_nothing() else "MKL"}
    library = known[begun] if begun in known else _faster()
    _held.append(library)
    try:
        with _precision("medium" if library == "oneDNN" else torch.get_float32_matmul_precision()):
            yield library
    finally:
        _held.clear()


def library_in_use() -> Library:
    """Whose fp32 products this block of the program gets."""
    return _held[0] if _held else "MKL"


@cache
def _faster() -> Library:
    """What is in use, unless oneDNN is clearly faster and as exact."""
    if not _rounds_nothing():
        return "MKL"
    x, y = (torch.ones(shape) for shape in (_SHAPES[0][:2], (_SHAPES[0][1], _SHAPES[0][2])))
    seconds = dict.fromkeys(("highest", "medium"), float("inf"))
    for _ in range(4):
        for precision in seconds:
            with _precision(precision):
                began = time.process_time()
                torch.mm(x, y)
                seconds[precision] = min(seconds[precision], time.process_time() - began)
    return "oneDNN" if seconds["highest"] > _GAIN * seconds["medium"] else "MKL"


@cache
def _rounds_nothing() -> bool:
    """Whether the CPU is what computes, nobody has chosen otherwise, and oneDNN's products are fp32's."""
    if torch.cuda.is_available() or torch.backends.mps.is_available() or not torch.backends.mkldnn.is_available():
        return False
    if torch.get_float32_matmul_precision() != "highest":
        return False
    noise = torch.Generator().manual_seed(0)
    for rows, inner, columns in _SHAPES:
        x, y = (torch.randn(*size, generator=noise) for size in ((rows, inner), (inner, columns)))
        exact = x.double() @ y.double()
        error = {}
        for precision in ("highest", "medium"):
            with _precision(precision):
                error[precision] = float((x @ y - exact).abs().max())
        if error["medium"] > _ERROR * error["highest"]:
            return False
    return True


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
