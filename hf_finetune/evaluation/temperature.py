"""Temperature scaling: one number that makes a classifier as sure as it is right.

Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599): logits are divided
by the temperature with the least negative log likelihood on validation rows. No decision of a class changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.console import warn
from hf_finetune.evaluation import measures
from hf_finetune.evaluation.calibration_error import CalibrationError
from hf_finetune.outputs import log_normalizer, parts_of

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType

_HOTTEST = 100.0  # beyond it, or below one over it, there is no minimum worth the name


def fit_temperature(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> float:
    """The temperature, by L-BFGS on the log of its inverse, in which the loss has one minimum.

    Args:
        logits: (N, C) of validation rows.
        labels: (N,) class numbers, or (N, C) of 0 and 1.
        problem_type: single or multi label.

    Returns:
        more than 0; 1, with a warning, where there is no minimum (every row right), or a logit is no number.
    """
    from scipy.optimize import minimize

    single = problem_type == "single_label_classification"
    right = logits.argmax(axis=1) == labels if single else (logits > 0) == (labels > 0.5)
    if not np.isfinite(logits).all():
        return _none("the model's outputs hold NaN or infinite numbers")
    if right.all():  # ever colder is ever better
        return _none(f"all {len(logits):,} validation rows are right")
    edge = float(np.log(_HOTTEST))
    likelihood = _Likelihood(logits, labels, single)
    options = {"ftol": 1e-12, "gtol": 1e-9}
    found = minimize(likelihood, 0.0, jac=True, method="L-BFGS-B", bounds=[(-edge, edge)], options=options)
    if abs(found.x[0]) > edge - 1e-6:
        return _none("the outputs say nothing about the validation rows" if found.x[0] < 0 else "ever colder is better")
    return float(np.exp(-found.x[0]))


def _none(why: str) -> float:
    warn(f"evaluation.calibration: there is no best temperature ({why}); it stays 1.")
    return 1.0


class _Likelihood:
    """The mean negative log likelihood of logits times exp(x), and its derivative by x.

    The logits are shared out in parts, so that a float64 copy of all of them never stands beside them.
    """

    def __init__(self, logits: np.ndarray, labels: np.ndarray, single: bool) -> None:
        self.logits, self.labels, self.single = logits, labels, single

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        beta = float(np.exp(x[0]))
        total = slope = 0.0
        for part in parts_of(self.logits):
            rows = self.logits[part].astype(np.float64)
            loss, by_beta = (_of_classes if self.single else _of_labels)(rows, self.labels[part], beta)
            total, slope = total + loss, slope + by_beta
        count = self.logits.size if not self.single else len(self.logits)
        return total / count, np.array([beta * slope / count])


def _of_classes(rows: np.ndarray, labels: np.ndarray, beta: float) -> tuple[float, float]:
    own = np.take_along_axis(rows, labels[:, None].astype(np.int64), axis=1)[:, 0]
    normalizer = log_normalizer(beta * rows)
    likely = np.exp(beta * rows - normalizer[:, None])
    return float((normalizer - beta * own).sum()), float(((likely * rows).sum(axis=1) - own).sum())


def _of_labels(rows: np.ndarray, labels: np.ndarray, beta: float) -> tuple[float, float]:
    hot = beta * rows
    likely = 1 / (1 + np.exp(-np.clip(hot, -500, 500)))
    return float((np.logaddexp(0, hot) - labels * hot).sum()), float(((likely - labels) * rows).sum())


def how_calibrated(logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> dict[str, float]:
    """Expected calibration error and log loss of (N, C) logits; of several labels those of all decisions together."""
    if problem_type == "multi_label_classification":
        flat = np.ascontiguousarray(logits).reshape(-1).astype(np.float64)
        logits, labels = np.stack([np.zeros_like(flat), flat], axis=1), np.asarray(labels).reshape(-1).astype(np.int64)
    once = np.ones((len(logits), 1))
    labels = np.asarray(labels).astype(np.int64)
    ece, log_loss = CalibrationError(logits, labels), measures.log_loss(logits, labels)
    return {"ece": float(ece(once)[0]), "log_loss": float(log_loss(once)[0])}
