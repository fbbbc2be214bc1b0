"""Which kernels were the fastest on this machine: measured once, so that a second run is alike to the last bit.

A few milliseconds decide, and on a busy machine they decide now this way, now that. A run that was killed before its
first checkpoint begins anew, and would then end with other last bits than if it had not been killed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hf_finetune.console import is_main_process
from hf_finetune.remembered import KERNELS, processor, recall, remember


def known(choice: str, measure: Callable[[], str]) -> str:
    """What was measured before, else what is measured now, which is written down where the cache can be written to.

    Args:
        choice: what is chosen, and what it depends on beside machine, threads and torch.
        measure: gives the choice.
    """
    key = f"{choice}, {_machine()}"
    found = recall(KERNELS, key)
    if isinstance(found, str):
        return found
    found = measure()
    if is_main_process():
        remember(KERNELS, key, found)
    return found


def _machine() -> str:
    device = "GPU" if torch.cuda.is_available() or torch.backends.mps.is_available() else "CPU"
    capability = torch.backends.cpu.get_cpu_capability()
    precision = torch.get_float32_matmul_precision()
    return (
        f"{device}, {processor()} {capability}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{precision} precision"
    )
