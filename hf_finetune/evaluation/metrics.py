"""The metrics: which exist for each kind of problem, and their values. Numpy alone; the network is never needed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation import measures, measures_of_numbers
from hf_finetune.evaluation.calibration_error import CalibrationError
from hf_finetune.evaluation.external import PREFIX, external_measure, external_problem
from hf_finetune.evaluation.statistic import Measure, Statistic
from hf_finetune.outputs import all_finite
from hf_finetune.recipes.metric_names import METRIC_NAMES

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType

METRICS: dict[str, dict[str, Measure]] = {
    "single_label_classification": {
        "accuracy": measures.accuracy,
        "balanced_accuracy": measures.balanced_accuracy,
        "macro_f1": measures.macro_f1,
        "micro_f1": measures.micro_f1,
        "top5_accuracy": measures.top5_accuracy,
        "log_loss": measures.log_loss,
        "ece": CalibrationError,
    },
    "multi_label_classification": {
        "micro_f1": measures.multi_micro_f1,
        "macro_f1": measures.multi_macro_f1,
        "mean_average_precision": measures.mean_average_precision,
        "accuracy": measures.subset_accuracy,
    },
    "regression": {
        "mse": measures_of_numbers.mse,
        "mae": measures_of_numbers.mae,
        "r2": measures_of_numbers.r2,
        "pearson": measures_of_numbers.pearson,
        "spearman": measures_of_numbers.spearman,
    },
}

# Shares of the samples: each is right or it is not.
SHARES: dict[str, frozenset[str]] = {
    "single_label_classification": frozenset({"accuracy", "micro_f1", "top5_accuracy"}),
    "multi_label_classification": frozenset({"accuracy"}),
    "regression": frozenset(),
}
_LOWER_IS_BETTER = frozenset({"log_loss", "ece", "mse", "mae", "loss"})
_TOP5_NEEDS = 6  # classes: among five or fewer, every answer is in the top five

_UNDEFINED = {
    "r2": "the target is the same for every sample",
    "pearson": "the target or the prediction is the same for every sample",
    "spearman": "the target or the prediction is the same for every sample",
    "mean_average_precision": "no class occurs in the labels",
    "micro_f1": "no class is labelled or predicted",
    "macro_f1": "no class is labelled or predicted",
}


def default_metrics(problem_type: ProblemType, num_labels: int) -> tuple[str, ...]:
    """Metrics shown where a recipe names none; the first one chooses the best checkpoint.

    Micro F1 of single labels is left out because it equals accuracy, top-5 where there are five classes or fewer.
    """
    left_out = set()
    if problem_type == "single_label_classification":
        left_out = {"micro_f1"} | ({"top5_accuracy"} if num_labels < _TOP5_NEEDS else set())
    return tuple(name for name in METRIC_NAMES[problem_type] if name not in left_out)


def greater_is_better(name: str) -> bool:
    """Whether a higher value of the metric (with or without `eval_` before it) is the better one."""
    return name.removeprefix("eval_") not in _LOWER_IS_BETTER


def bounds(name: str) -> tuple[float, float]:
    """The least and greatest value a metric can take; infinite for one we do not know."""
    if name.startswith(PREFIX):
        return -np.inf, np.inf
    lowest = {"r2": -np.inf, "pearson": -1.0, "spearman": -1.0}.get(name, 0.0)
    return lowest, np.inf if name in {"log_loss", "mse", "mae"} else 1.0


def check_metrics(
    names: Sequence[str],
    problem_type: ProblemType,
    *,
    num_labels: int | None = None,
    trust_remote_code: bool = False,
) -> list[str]:
    """What is wrong with a choice of metrics, a sentence each; nothing is loaded.

    Args:
        names: names of METRICS, or `evaluate:ID` for a metric of the Hub or of a local folder.
        num_labels: number of classes, where known.
        trust_remote_code: whether `evaluate:ID`, which runs the metric's own code, is allowed.
    """
    complaints = []
    known = METRICS[problem_type]
    for name in names:
        if name.startswith(PREFIX):
            problem = external_problem(name, trust_remote_code=trust_remote_code)
            complaints += [problem] if problem else []
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            complaints.append(
                f"there is no metric '{name}' for {problem_type.replace('_', ' ')}{hint} "
                f"Known: {', '.join(known)}, and {PREFIX}ID for a metric of the Hub."
            )
        elif name == "top5_accuracy" and num_labels is not None and num_labels < _TOP5_NEEDS:
            complaints.append(
                f"top5_accuracy is always 1 among {num_labels} classes and says nothing: it needs {_TOP5_NEEDS}."
            )
    return complaints


def compute_metrics(
    logits: np.ndarray,
    labels: np.ndarray,
    problem_type: ProblemType,
    names: Sequence[str],
    *,
    trust_remote_code: bool = False,
) -> dict[str, float]:
    """Values of the metrics.

    Args:
        logits: (N, C) outputs of the model before softmax or sigmoid; (N,) or (N, T) values for regression.
        labels: (N,) class indices, (N, C) of 0 and 1 for multi-label, (N,) or (N, T) numbers for regression.
        names: see `check_metrics`.

    Returns:
        name -> value, NaN where the metric does not exist for these samples (`undefined_because` says why). An
        `evaluate:ID` that gives several values gives `evaluate:ID/key` for each.

    Raises:
        UserError: for a name that is not a metric of this problem, shapes that do not fit, or no samples.
    """
    logits, labels = fit_shapes(logits, labels, problem_type)
    once = np.ones((len(logits), 1))
    values = {
        name: float(statistic(once)[0])
        for name, statistic in statistics_of(logits, labels, problem_type, names, trust_remote_code).items()
    }
    return values if all_finite(logits) else dict.fromkeys(values, float("nan"))


def undefined_because(name: str, logits: np.ndarray) -> str:
    """Why a metric has no value on these samples."""
    if not all_finite(logits):
        return "the model's outputs hold NaN or infinite numbers"
    return _UNDEFINED.get(name, "the metric returned no number")


def statistics_of(
    logits: np.ndarray,
    labels: np.ndarray,
    problem_type: ProblemType,
    names: Sequence[str],
    trust_remote_code: bool = False,
) -> dict[str, Statistic]:
    """Each metric as a function of resample counts; arguments as `fit_shapes` returns them."""
    complaints = check_metrics(names, problem_type, num_labels=logits.shape[1], trust_remote_code=trust_remote_code)
    if complaints:
        raise UserError("\n".join(complaints))
    # Sums of a diverged model's outputs would warn without end; the values are replaced by NaN anyway.
    logits = logits if all_finite(logits) else np.zeros_like(logits)
    found: dict[str, Statistic] = {}
    for name in names:
        if name.startswith(PREFIX):
            found |= external_measure(name, logits, labels, problem_type)
        else:
            found[name] = METRICS[problem_type][name](logits, labels)
    return found


def fit_shapes(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> tuple[np.ndarray, np.ndarray]:
    """Logits as (N, C) and labels as the measures take them, or a UserError that gives both shapes."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    given = f"outputs of shape {logits.shape} and labels of shape {labels.shape}"
    if len(logits) == 0:
        raise UserError(f"metrics need at least one sample, got {given}.")
    if problem_type == "regression":
        logits, labels = logits.astype(float), labels.astype(float)
        logits = logits[:, None] if logits.ndim == 1 else logits
        labels = labels[:, None] if labels.ndim == 1 else labels
    elif problem_type == "single_label_classification":
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        fits = logits.ndim == 2 and labels.ndim == 1 and len(labels) == len(logits)
        if not fits or labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise UserError(f"single-label metrics need outputs (N, classes) and class numbers below it, got {given}.")
        return logits, labels.astype(np.int64)
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise UserError(f"{problem_type.replace('_', ' ')} needs outputs and labels of one shape, got {given}.")
    return logits, labels
