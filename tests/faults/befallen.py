"""A run of the command line that something befalls in one of its processes; the tests and scripts beside it start it.

    torchrun --standalone --nproc_per_node 2 tests/faults/befallen.py WHAT RANK STEP train recipe=digits ...

WHAT happens once, in that process, at the beginning of the training step behind STEP updates: `hang` (it never
returns), `leave` (the process ends without a word), `memory` (torch's error), `number` (the inputs are no numbers, in
this and every later start), `image` (an error of the data). A file `befallen` in the working folder says that it has
happened.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

_ONCE = Path("befallen")


def befall(what: str, trainer: Any, inputs: dict[str, Any]) -> None:
    """Let it happen."""
    if what == "number":
        inputs["pixel_values"] = inputs["pixel_values"].float() * float("nan")
        inputs.pop("normalization", None)
        return
    if _ONCE.exists():
        return
    _ONCE.touch()
    if what == "hang":
        threading.Event().wait()
    elif what == "leave":
        os._exit(7)
    elif what == "memory":
        import torch

        torch.empty(10**16)
    elif what == "image":
        from hf_finetune.errors import DataError

        raise DataError("row 5 of train is broken")


def main() -> int:
    """The command line, with what is to happen put into the Trainer."""
    what, rank, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
    from hf_finetune.cli import main as command

    if os.environ.get("RANK", "0") == rank:
        from hf_finetune.training.trainer import FinetuneTrainer

        whole = FinetuneTrainer.training_step

        def training_step(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == step:
                befall(what, self, inputs)
            return whole(self, model, inputs, *args, **kwargs)

        FinetuneTrainer.training_step = training_step  # type: ignore[method-assign]
    return command(sys.argv[4:])


if __name__ == "__main__":
    sys.exit(main())
