"""How good a model is, and how sure that is: metrics, intervals, prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.evaluation.intervals import with_intervals
from hf_finetune.evaluation.metrics import (
    METRICS,
    check_metrics,
    compute_metrics,
    default_metrics,
    greater_is_better,
)
from hf_finetune.outputs import predictions, probabilities

if TYPE_CHECKING:
    from hf_finetune.evaluation.evaluate_metrics import FinetuneMetric

__all__ = [
    "METRICS",
    "FinetuneMetric",
    "check_metrics",
    "compute_metrics",
    "default_metrics",
    "greater_is_better",
    "predictions",
    "probabilities",
    "with_intervals",
]


def __getattr__(name: str) -> Any:
    if name == "FinetuneMetric":  # imports the evaluate library, which training does without
        from hf_finetune.evaluation.evaluate_metrics import FinetuneMetric

        return FinetuneMetric
    raise AttributeError(f"module 'hf_finetune.evaluation' has no attribute {name!r}")
