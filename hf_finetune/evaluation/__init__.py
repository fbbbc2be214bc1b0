"""How good a model is, and how sure that is: metrics, intervals, prediction."""

from __future__ import annotations

from hf_finetune.evaluation.intervals import with_intervals
from hf_finetune.evaluation.metrics import (
    METRICS,
    check_metrics,
    compute_metrics,
    default_metrics,
    greater_is_better,
)
from hf_finetune.outputs import predictions, probabilities

__all__ = [
    "METRICS",
    "check_metrics",
    "compute_metrics",
    "default_metrics",
    "greater_is_better",
    "predictions",
    "probabilities",
    "with_intervals",
]
