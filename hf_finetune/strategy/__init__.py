"""Who learns, and at what rate. Imported late: everything in here needs torch."""

from __future__ import annotations

from hf_finetune.strategy.apply import Applied, apply_strategy

__all__ = ["Applied", "apply_strategy"]
