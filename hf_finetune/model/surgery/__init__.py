"""What a recipe changes in a checkpoint before its head is made: `operate` is the table of contents.

Every change is written in the model's configuration first, and the model is built again from that configuration with
the old weights in it (`rebuild`). So a saved folder reloads as the same model, in any library that reads such folders.
"""

from __future__ import annotations

from hf_finetune.model.surgery.batch_norm import set_momentum, still_batch_norms
from hf_finetune.model.surgery.fresh_blocks import timm_state
from hf_finetune.model.surgery.operate import Operated, operate

__all__ = ["Operated", "operate", "set_momentum", "still_batch_norms", "timm_state"]
