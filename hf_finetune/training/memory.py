"""Memory that one step frees stays the process's, for the next step.

glibc gives every block above 32 MB back to the kernel when it is freed, and takes it anew, page by page and zeroed, a
step later. The activations of an image model are such blocks: on a virtual machine, where a page fault is dear, that
was half of the processor time of a step of MobileNetV2.
"""

from __future__ import annotations

import ctypes
import sys

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks; nothing where a GPU trains or another allocator is at work.

    Returns:
        whether it was told.
    """
    if not sys.platform.startswith("linux") or torch.cuda.is_available():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    return bool(mallopt and mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
