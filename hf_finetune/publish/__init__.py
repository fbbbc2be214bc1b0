"""What a run leaves. Imported late: saving needs torch."""

from __future__ import annotations

from hf_finetune.publish.save import save_run

__all__ = ["save_run"]
