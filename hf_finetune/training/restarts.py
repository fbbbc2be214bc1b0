"""Processes that torchrun has started again find each other, not what is left of those before them.

torchrun keeps one store for all its starts, in which processes leave the addresses at which they listen. Since it is
shared (torch 2.5), whoever comes first after a restart may read the address of a process that is not there any more,
and waits for it until `training.ddp_timeout` (pytorch issue 135712). Here each start has keys of its own.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def meet_anew() -> None:
    """Let a process group that is made from now on use the keys of this start; nothing outside of restarts.

    Machines of several count their restarts each for itself: with several machines torchrun itself must be told, by
    `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if start == "0" or not shared or os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        return
    from torch.distributed import PrefixStore

    module: Any = sys.modules["torch.distributed.rendezvous"]  # a function has the same name
    make = module._create_c10d_store

    def own(*args: Any, **kwargs: Any) -> Any:
        return PrefixStore(f"/start_{start}", make(*args, **kwargs))

    module._create_c10d_store = own
