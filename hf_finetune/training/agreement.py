"""All ranks agree: a fault that one process alone finds is told, and stops every process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import distributed

from hf_finetune.console import is_main_process
from hf_finetune.disk import DiskError
from hf_finetune.errors import TransientError, UserError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def together(step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call `step` on every process; where it fails on any of them, all stop with the reason.

    A file that is missing on the second machine would otherwise leave the first waiting until it times out, with a
    traceback of torch.distributed in place of the reason.

    Raises:
        UserError: this process's own, else the first of the others', with the number of its process; a DiskError or a
            TransientError where that is one.
        Exception: this process's own, of any other kind; the others raise a UserError that names it.
    """
    fault: Exception | None = None
    result: Result | None = None
    try:
        result = step(*args, **kwargs)
    except Exception as error:
        fault = error
    if distributed.is_available() and distributed.is_initialized():
        told: list[tuple[type[UserError], str] | None] = [None] * distributed.get_world_size()
        distributed.all_gather_object(told, None if fault is None else _in_words(fault))
        first = next(((rank, words) for rank, words in enumerate(told) if words is not None), None)
        if fault is None and first is not None:
            kind, words = first[1]
            raise kind(f"Process {first[0]} of {len(told)}: {words}")
    if fault is not None:
        raise fault
    return result  # type: ignore[return-value]


def _in_words(fault: Exception) -> tuple[type[UserError], str]:
    kind = next((kind for kind in (DiskError, TransientError) if isinstance(fault, kind)), UserError)
    return kind, str(fault) if isinstance(fault, UserError) else f"{type(fault).__name__}: {fault}"


def as_the_first(value: Result) -> Result:
    """The value that the first process has: what each reads off a disk by itself may differ."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    told: list[Result] = [value]
    distributed.broadcast_object_list(told, src=0)
    return told[0]


def by_the_first(step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call `step` on the first process; its result, or its fault, is that of every process."""
    found = together(step, *args, **kwargs) if is_main_process() else together(lambda: None)
    return as_the_first(found)  # type: ignore[return-value]
