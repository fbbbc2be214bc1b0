"""Classifiers and regressors of scikit-learn on fixed features, as the weights of a linear output layer.

Features are standardised first. Logits are scikit-learn's: of `logistic` those whose softmax (or sigmoid) is its
`predict_proba`; of `ridge` and `svm` its decision values, whose argmax (or sign) is its `predict` and which are no
calibrated probabilities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import ProblemType, Recipe

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from hf_finetune.data import TaskData

# What regularises each, its name, and the values tried, strongest first: of equals the strongest is taken.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "logistic": ("C", (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)),
    "ridge": ("alpha", (1e6, 1e5, 1e4, 1e3, 100.0, 10.0, 1.0, 0.1)),
    "svm": ("C", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)),
    "knn": ("k", (100, 50, 20, 10, 5, 3, 1)),
}
_NEVER = -1e4  # logit of a class without a training row
# Used by a run without steps of an optimizer.
_USED = ("per_device_eval_batch_size", "dataloader_num_workers", "report_to", "eval_accumulation_steps")


@dataclass(frozen=True)
class Linear:
    """Logits = features @ weight.T + bias.

    Args:
        weight: float64 (C, D).
        bias: float64 (C,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, C) of features (N, D)."""
        return features @ self.weight.T + self.bias

    def on_raw(self, mean: np.ndarray, scale: np.ndarray) -> Linear:
        """The same function of features that were not standardised."""
        weight = self.weight / scale
        return Linear(weight, self.bias - weight @ mean)


def classifier_of(recipe: Recipe, problem: ProblemType) -> str:
    """The classifier of a recipe with strategy=features, `auto` resolved by the data.

    Raises:
        UserError: logistic for numbers.
    """
    chosen: str = recipe.strategy.classifier  # type: ignore[union-attr]
    if chosen == "auto":
        return "ridge" if problem == "regression" else "logistic"
    if chosen == "logistic" and problem == "regression":
        raise UserError(
            "strategy.classifier=logistic is for classes, and the labels are numbers: use ridge, svm or knn."
        )
    return chosen


def grid_of(recipe: Recipe, classifier: str, rows: int) -> tuple[float, ...]:
    """The values to try, strongest regularisation first; not more neighbours than there are rows."""
    given: tuple[float, ...] | None = recipe.strategy.regularization  # type: ignore[union-attr]
    values = sorted(set(given or GRIDS[classifier][1]), reverse=classifier in ("ridge", "knn"))
    if classifier != "knn":
        return tuple(values)
    few = tuple(value for value in values if value <= rows)
    if not few:
        raise UserError(f"strategy.regularization: {values} neighbours of {rows} training rows. Give smaller numbers.")
    return few


def fit_in_words(recipe: Recipe, task: TaskData, arguments: TrainingArguments) -> str:
    """What will be done, and which training arguments have no part in it."""
    classifier = classifier_of(recipe, task.labels.problem_type)
    name, values = GRIDS[classifier][0], grid_of(recipe, classifier, len(task.train))
    shown = ", ".join(f"{value:g}" for value in values)
    lines = [
        f"{classifier} of scikit-learn on standardised features; {name} of {shown}",
        f"The one with the best validation {arguments.metric_for_best_model} is kept, as it was fitted on the training "
        "rows alone.",
    ]
    unused = [name for name in recipe.training.values() if name not in _USED]
    if recipe.evaluation.patience is not None:
        unused.append("evaluation.patience")
    if unused:
        lines.append(f"without a part in a fit: {', '.join(unused)}")
    return "\n".join(lines)


def fit_linear(
    classifier: str, value: float, features: np.ndarray, targets: np.ndarray, problem: ProblemType, outputs: int
) -> Linear:
    """A linear classifier or regressor.

    Args:
        classifier: logistic, ridge or svm.
        value: C or alpha.
        features: (N, D), standardised.
        targets: (N,) class numbers; (N, C) of 0 and 1 for multi-label; (N,) or (N, T) numbers.
        problem: of the targets.
        outputs: C or T.

    Raises:
        UserError: all rows are of one class.
    """
    with warnings.catch_warnings():
        from sklearn.exceptions import ConvergenceWarning

        warnings.simplefilter("ignore", ConvergenceWarning)  # validation judges what it got to
        if problem == "single_label_classification":
            return _classes(_estimator(classifier, value), features, targets, outputs)
        if problem == "multi_label_classification":
            columns = targets.reshape(len(targets), -1)
            fits = [_label(_estimator(classifier, value), features, columns[:, place]) for place in range(outputs)]
            return Linear(np.stack([weight for weight, _ in fits]), np.array([bias for _, bias in fits]))
        return _numbers(classifier, value, features, targets.reshape(len(targets), -1))


def _estimator(classifier: str, value: float) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.svm import LinearSVC

    make: dict[str, Callable[[], Any]] = {
        "logistic": lambda: LogisticRegression(C=value, max_iter=1000),
        "ridge": lambda: RidgeClassifier(alpha=value),
        "svm": lambda: LinearSVC(C=value, dual="auto", random_state=0),
    }
    return make[classifier]()


def _classes(estimator: Any, features: np.ndarray, targets: np.ndarray, outputs: int) -> Linear:
    if len(np.unique(targets)) < 2:
        raise UserError("strategy=features: all training rows are of one class, so there is nothing to tell apart.")
    estimator.fit(features, targets)
    weight, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    if len(weight) == 1:  # two classes have one decision value z: softmax of (-z/2, z/2) is sigmoid of z
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    everywhere = Linear(np.zeros((outputs, features.shape[1])), np.full(outputs, _NEVER))
    everywhere.weight[estimator.classes_] = weight
    everywhere.bias[estimator.classes_] = bias
    return everywhere


def _label(estimator: Any, features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """One label against its absence; a label that every row has, or none, is answered without looking."""
    present = float(target.sum())
    if present in (0.0, len(target)):
        return np.zeros(features.shape[1]), float(np.log((present + 0.5) / (len(target) - present + 0.5)))
    estimator.fit(features, target.astype(np.int64))
    return estimator.coef_.reshape(-1), float(estimator.intercept_[0])


def _numbers(classifier: str, value: float, features: np.ndarray, targets: np.ndarray) -> Linear:
    """Regression of standardised targets, given back in their own unit."""
    from sklearn.linear_model import Ridge
    from sklearn.svm import LinearSVR

    mean, scale = targets.mean(axis=0), targets.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    weights, biases = [], []
    for column in ((targets - mean) / scale).T:
        estimator: Any = Ridge(alpha=value)
        if classifier == "svm":
            estimator = LinearSVR(C=value, dual="auto", random_state=0)
        estimator.fit(features, column)
        weights.append(estimator.coef_.reshape(-1))
        biases.append(float(np.ravel(estimator.intercept_)[0]))
    return Linear(np.stack(weights) * scale[:, None], np.array(biases) * scale + mean)
