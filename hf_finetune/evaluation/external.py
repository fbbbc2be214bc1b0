"""Metrics of the Hub through `evaluate`: `evaluate:ID`, or `evaluate:./folder` for a local one.

Such a metric is a Python script of its author's, so it loads only with trust_remote_code, which the command line
alone can give.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation.statistic import Statistic
from hf_finetune.outputs import predictions

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType

PREFIX = "evaluate:"


def external_problem(name: str, *, trust_remote_code: bool) -> str | None:
    """Why a metric `evaluate:ID` cannot be used, or None."""
    if not name.removeprefix(PREFIX):
        return f"'{name}' names no metric: write {PREFIX}ID, for example {PREFIX}matthews_correlation."
    if not trust_remote_code:
        return (
            f"'{name}' runs its author's code, which a recipe cannot allow: add --trust-remote-code "
            "(in Python trust_remote_code=True) if you trust it."
        )
    return None


def external_measure(
    name: str, logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType
) -> dict[str, Statistic]:
    """The values a metric of the Hub returns, each as a function of resample counts (N, B).

    The metric sees predictions (class numbers, 0/1 lists or values) and labels; its resamples go straight to its own
    computation, because evaluate's arrow files would take seconds.
    """
    metric = _load(name.removeprefix(PREFIX))
    predicted = predictions(logits, problem_type)
    truth = labels[:, 0] if problem_type == "regression" and labels.shape[1] == 1 else labels
    first = _numbers(name, _compute(name, metric, predicted, truth))

    def statistic_of(key: str) -> Statistic:
        def statistic(counts: np.ndarray) -> np.ndarray:
            rows = np.arange(len(truth))
            picks = [np.repeat(rows, counts[:, b].astype(int)) for b in range(counts.shape[1])]
            return np.array([_numbers(name, _compute(name, metric, predicted[p], truth[p]))[key] for p in picks])

        return statistic

    return {name if len(first) == 1 else f"{name}/{key}": statistic_of(key) for key in first}


@lru_cache(maxsize=16)
def _load(identifier: str) -> Any:
    import evaluate

    try:
        return evaluate.load(identifier, keep_in_memory=True)
    except (FileNotFoundError, ConnectionError, ImportError, ValueError, OSError) as error:
        raise UserError(
            f"the metric '{PREFIX}{identifier}' cannot be loaded ({error}). It takes the id of a metric on the Hub "
            "(the Hub must be reachable) or a folder that holds a script of the folder's own name."
        ) from error


def _compute(name: str, metric: Any, predicted: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    try:
        result: dict[str, Any] = metric._compute(predictions=predicted.tolist(), references=truth.tolist())
    except Exception as error:  # the author's code may raise anything
        raise UserError(f"the metric '{name}' failed on these predictions: {error}") from error
    return result


def _numbers(name: str, result: dict[str, Any]) -> dict[str, float]:
    """The plain numbers among a metric's results."""
    numbers = {
        key: float(value)
        for key, value in result.items()
        if isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.size == 1)
    }
    if not numbers:
        raise UserError(f"the metric '{name}' returned no number but {sorted(result)}.")
    return numbers
