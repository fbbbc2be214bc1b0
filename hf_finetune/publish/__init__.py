"""What a run leaves, and its way to the Hub. Imported late: saving needs torch."""

from __future__ import annotations

from hf_finetune.publish.push import PushError, check_hub, push_run
from hf_finetune.publish.save import save_run

__all__ = ["PushError", "check_hub", "push_run", "save_run"]
