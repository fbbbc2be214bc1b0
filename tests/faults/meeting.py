"""Two processes that meet under torchrun; one ends without a word, and of the next two the first is there early.

    torchrun --standalone --nproc_per_node 2 --max-restarts 1 tests/faults/meeting.py

Alone with torch, so that it takes seconds: `training/restarts.py` is read as a file.
"""

from __future__ import annotations

import importlib.util
import os
import time
from datetime import timedelta
from pathlib import Path

from torch import distributed

MENDED = Path(__file__).resolve().parent.parent.parent / "hf_finetune" / "training" / "restarts.py"


def main() -> None:
    """Meet, part, meet again."""
    spec = importlib.util.spec_from_file_location("restarts", MENDED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.meet_anew()
    rank, start = int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"]
    if start == "1" and rank == 0:
        time.sleep(4)  # the other one is there first, and finds what the first start has left
    distributed.init_process_group("gloo", timeout=timedelta(seconds=30))
    distributed.barrier()
    if start == "0" and rank == 1:
        os._exit(7)
    distributed.barrier()
    print(f"process {rank} has met the other in start {start}", flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
