"""The k nearest training rows as a head: their standardised features and labels are saved as its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from hf_finetune.model.custom_head import CustomHeadConfig
from hf_finetune.model.custom_layers import NeighboursHead, neighbours_logits
from hf_finetune.model.heads import replace_head, with_new_layers
from hf_finetune.recipes.schema import ProblemType, Recipe
from hf_finetune.recipes.section import Section


class NeighboursSettings(Section):
    """What config.json says of such a head."""

    kind: Literal["knn"] = "knn"
    rows: int
    neighbours: int
    problem: ProblemType


@dataclass(frozen=True)
class Neighbours:
    """k nearest neighbours, each with the same vote, by Euclidean distance of standardised features.

    Args:
        k: how many.
        estimator: scikit-learn's, fitted.
        features: float64 (N, D), standardised.
        values: float64 (N, C): one-hot classes, labels or numbers.
        problem: of the labels.
        mean: (D,) of the raw features.
        scale: (D,) of the raw features.
    """

    k: int
    estimator: Any
    features: np.ndarray
    values: np.ndarray
    problem: ProblemType
    mean: np.ndarray
    scale: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, C) of standardised features (N, D)."""
        shares = self.estimator.predict(features).reshape(len(features), -1)
        return neighbours_logits(torch.from_numpy(shares), self.problem).numpy()


def fit_neighbours(
    k: int,
    features: np.ndarray,
    targets: np.ndarray,
    problem: ProblemType,
    outputs: int,
    mean: np.ndarray,
    scale: np.ndarray,
) -> Neighbours:
    """Neighbours of standardised features; the mean of one-hot classes is KNeighborsClassifier's predict_proba."""
    from sklearn.neighbors import KNeighborsRegressor

    one_hot = problem == "single_label_classification"
    values = np.eye(outputs)[targets] if one_hot else targets.reshape(len(targets), -1)
    estimator = KNeighborsRegressor(n_neighbors=k).fit(features, values)
    return Neighbours(k, estimator, features, values, problem, mean, scale)


@torch.no_grad()
def put_neighbours(model: Any, layer: str, fit: Neighbours, recipe: Recipe) -> Any:
    """The model with the neighbours in the place of its output layer, in the wrapper that saves and loads itself.

    Raises:
        UserError: the output layer is a convolution.
    """
    settings: Any = NeighboursSettings(rows=len(fit.features), neighbours=fit.k, problem=fit.problem)
    if isinstance(model.config, CustomHeadConfig):
        replace_head(model, layer, settings, recipe.seed)
    else:
        model, _ = with_new_layers(model, recipe.task, recipe.seed, head=settings, layer=layer)
    head = next(module for module in model.modules() if isinstance(module, NeighboursHead))
    for name in ("features", "values", "mean", "scale"):
        getattr(head, name).copy_(torch.from_numpy(getattr(fit, name)))
    return model
