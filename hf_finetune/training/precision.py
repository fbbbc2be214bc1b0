"""Who decides the number format: the accelerate config, else the user's `precision=`, else the hardware."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import torch

from hf_finetune.errors import UserError

Precision = Literal["no", "bf16", "fp16"]
PrecisionOption = Literal["auto", "no", "bf16", "fp16"]


_LAUNCHER, _ASKED = "accelerate config", "asked for"


class NumberFormat(NamedTuple):
    """The precision of the training steps, and why."""

    name: Precision
    reason: str

    @property
    def open(self) -> bool:
        """Whether nobody has asked for it, so that a measurement may find a faster one."""
        return self.reason not in (_LAUNCHER, _ASKED)


@contextmanager
def launcher_settings() -> Iterator[None]:
    """Leaves the launcher's number format in the environment as it was; a run, and the Trainer in it, write theirs."""
    name = "ACCELERATE_MIXED_PRECISION"
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def choose_precision(option: str) -> NumberFormat:
    """The precision of the training steps, and the reason for it in words.

    `accelerate launch` sets ACCELERATE_MIXED_PRECISION to `no` also when nobody asked for anything, so only another
    value is an order; `precision=no` is how to ask for fp32.

    Raises:
        UserError: an unknown option, or one that contradicts the accelerate config.
    """
    if option not in get_args(PrecisionOption):
        raise UserError(f"precision={option}: allowed are {', '.join(get_args(PrecisionOption))}.")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in get_args(Precision):
        raise UserError(f"mixed precision {launched} of the accelerate config is not supported: use no, bf16 or fp16.")
    if launched != "no":
        if option not in ("auto", launched):
            raise UserError(
                f"precision={option}, but accelerate launches with mixed precision {launched}: leave one of them out."
            )
        return NumberFormat("bf16" if launched == "bf16" else "fp16", _LAUNCHER)
    if option == "fp16" and not torch.cuda.is_available():
        raise UserError("precision=fp16 needs a CUDA device: use precision=bf16 or precision=no here.")
    if option == "auto":
        return _fastest_safe()
    return NumberFormat("bf16" if option == "bf16" else "fp16" if option == "fp16" else "no", _ASKED)


def _fastest_safe() -> NumberFormat:
    """bf16 where the hardware computes in it: the range of fp32, so it needs no loss scaling."""
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return NumberFormat("bf16", "the GPU computes in it")
        return NumberFormat("no", "the GPU does not compute in bf16")
    if torch.backends.mps.is_available():
        return NumberFormat("no", "MPS")
    if _cpu_has_bf16():
        return NumberFormat("bf16", "the CPU computes in it")
    return NumberFormat("no", "the CPU does not compute in bf16")


def _cpu_has_bf16() -> bool:
    """Whether matrix products in bf16 are faster than in fp32 (AVX512-BF16 or AMX); emulated bf16 is slower."""
    return any(
        bool(getattr(torch.cpu, name, bool)()) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def launcher_shards_the_model() -> bool:
    """Whether the accelerate config asks for FSDP or DeepSpeed, which then own precision, saving and loading."""
    return launched_by_fsdp() or launched_by_deepspeed()


def launched_by_fsdp() -> bool:
    """Whether the accelerate config asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def launched_by_deepspeed() -> bool:
    """Whether the accelerate config asks for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
