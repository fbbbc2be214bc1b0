"""A run under FSDP2 on processes of the CPU (gloo), to see that training, checkpoints, resume and saving work sharded.

    ACCELERATE_USE_CPU=true accelerate launch --config_file accelerate_configs/fsdp2.yaml --num_processes 2 \\
        --mixed_precision no tests/faults/fsdp2_on_cpu.py train recipe=digits model.checkpoint=package:digits-vit

accelerate 1.15 shards on accelerators alone: on the CPU it drops the request without a word, which hf_finetune refuses
in words. Here its gate is opened for one more kind of process; what lies behind it is accelerate's own, and torch's
`fully_shard`. For trials: it is no way to train. How far it came stands in docs/scale.md.
"""

from __future__ import annotations

import os
from typing import Any

from accelerate import Accelerator, state
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

_made = state.AcceleratorState.__init__
_gathered = Accelerator.get_state_dict


def _with_fsdp(self: Any, *args: Any, **kwargs: Any) -> None:
    _made(self, *args, **kwargs)
    plugin = kwargs.get("fsdp_plugin")
    if self.distributed_type == DistributedType.MULTI_CPU and plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # every later state copies it


def _whole(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Whole weights: on the CPU accelerate's own come back in shards."""
    found = _gathered(self, *args, **kwargs)
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in found.items()}


def main() -> None:
    """Open the gate, and train."""
    from hf_finetune.cli import main as run
    from hf_finetune.training import arguments

    state.AcceleratorState.__init__ = _with_fsdp  # type: ignore[method-assign]
    Accelerator.get_state_dict = _whole  # type: ignore[method-assign]
    arguments.refuse_sharding_on_cpu = lambda: None
    if os.environ.get("RANK", "0") == "0":
        print("FSDP2 on the CPU: accelerate's gate is open", flush=True)
    raise SystemExit(run())


if __name__ == "__main__":
    main()
