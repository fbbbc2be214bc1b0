"""Our metrics as `evaluate.Metric`, so that they combine with those of the `evaluate` library. Imports it: import late.

Training does not use these: evaluate copies predictions through Arrow files, which takes seconds for many classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value

from hf_finetune.errors import UserError
from hf_finetune.evaluation.metrics import METRICS, compute_metrics

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType


class FinetuneMetric(evaluate.Metric):
    """One metric of METRICS; `predictions` are logits, so that all of them can be combined.

    Args:
        name: the metric's name.
        problem_type: decides what `references` are: class numbers, lists of 0 and 1, or lists of numbers.

    Raises:
        UserError: there is no such metric.

    Example:
        >>> both = evaluate.combine([FinetuneMetric("accuracy"), FinetuneMetric("ece")])
        >>> both.compute(predictions=logits, references=labels)
    """

    def __init__(self, name: str, problem_type: ProblemType = "single_label_classification", **options: Any) -> None:
        if name not in METRICS.get(problem_type, {}):
            raise UserError(
                f"There is no metric '{name}' for {problem_type}. Known: {', '.join(METRICS[problem_type])}."
            )
        self.metric_name = name
        self.problem_type = problem_type
        super().__init__(**{"keep_in_memory": True, **options})

    def _info(self) -> evaluate.MetricInfo:
        is_class = self.problem_type == "single_label_classification"
        features = {
            "predictions": Sequence(Value("float32")),
            "references": Value("int64") if is_class else Sequence(Value("float32")),
        }
        description = METRICS[self.problem_type][self.metric_name].__doc__ or ""
        return evaluate.MetricInfo(
            description=description,
            citation="",
            inputs_description="predictions: logits (N, C); references: labels, (N,) class numbers or (N, C)",
            features=Features(features),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return compute_metrics(np.asarray(predictions), np.asarray(references), self.problem_type, [self.metric_name])
