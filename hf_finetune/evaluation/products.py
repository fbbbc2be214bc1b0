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
_ROUNDS = 6
_ROWS = 128  # are enough to see rounding in
_held: list[Library] = []


@contextmanager
def fast_products(library: str | None = None) -> Iterator[None]:
    """Until the end of the block, fp32 products on the CPU by one library; inside another such block nothing changes.

    Args:
        library: "MKL" or "oneDNN" (MKL where that would round); the faster if None.
    """
    if _held:
        yield
        return
    by_one_dnn = (library or faster_library()) == "oneDNN" and _is_open() and _rounds_nothing()
    _held.append("oneDNN" if by_one_dnn else "MKL")
    try:
        with _precision("medium" if by_one_dnn else torch.get_float32_matmul_precision()):
            yield
    finally:
        _held.clear()


def library_in_use() -> Library:
    """Whose fp32 products this block of the program gets."""
    return _held[0] if _held else "MKL"


def faster_library() -> Library:
    """oneDNN where it is clearly faster and as exact, and nobody has chosen; a measurement, made once a process."""
    return "oneDNN" if _is_open() and _rounds_nothing() and _gain() > _GAIN else "MKL"


def _is_open() -> bool:
    """Whether the CPU is what computes, and its precision is as torch sets it."""
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return not on_gpu and torch.backends.mkldnn.is_available() and torch.get_float32_matmul_precision() == "highest"


@cache
def _gain() -> float:
    """How many times faster oneDNN is: the least of a few rounds, since other work only adds."""
    x, y = torch.ones(_SHAPES[0][:2]), torch.ones(_SHAPES[0][1:])
    seconds = dict.fromkeys(("highest", "medium"), float("inf"))
    for _ in range(_ROUNDS):
        for precision in seconds:
            with _precision(precision):
                began = time.perf_counter()
                torch.mm(x, y)
                seconds[precision] = min(seconds[precision], time.perf_counter() - began)
    return seconds["highest"] / seconds["medium"]


@cache
def _rounds_nothing() -> bool:
    """Whether oneDNN's products are fp32's where it may round them to bf16."""
    noise = torch.Generator().manual_seed(0)
    for _, inner, columns in _SHAPES:
        x, y = (torch.randn(*size, generator=noise) for size in ((_ROWS, inner), (inner, columns)))
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
