"""`strategy=features`: pooled features, computed once, and a classifier of scikit-learn that becomes the head.

The pooled features are what the model's output layer receives. Every process computes all of them, in fp32 and without
augmentation; the validation rows choose the regularisation, and the fit is not repeated with them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed, nn
from transformers import EvalPrediction

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.model.heads import output_layer
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.agreement import together
from hf_finetune.training.features_checks import check_finite, check_layer, check_linear, own_layer
from hf_finetune.training.fits import GRIDS, Linear, classifier_of, fit_linear, grid_of
from hf_finetune.training.neighbours import Neighbours, fit_neighbours, put_neighbours
from hf_finetune.training.precision import launcher_shards_the_model

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.strategy import Applied
    from hf_finetune.training.setup import Samples
    from hf_finetune.training.trainer import FinetuneTrainer


@dataclass(frozen=True)
class Fitted:
    """What a fit took and chose.

    Args:
        classifier: logistic, ridge, svm or knn.
        name: of what regularises it.
        chosen: its value.
        scores: validation score of each value that was tried.
        metric: that score's name.
        rows: of training.
        width: of the features.
        seconds: for the features and all fits.
        processes: each of which did all of it.
    """

    classifier: str
    name: str
    chosen: float
    scores: dict[float, float]
    metric: str
    rows: int
    width: int
    seconds: float
    processes: int

    def facts(self) -> dict[str, Any]:
        """As metrics.json holds them."""
        return {
            "seconds": round(self.seconds, 4),
            "classifier": self.classifier,
            self.name: self.chosen,
            "tried": {f"{value:g}": score for value, score in self.scores.items()},
            "features": self.width,
            "samples": self.rows,
            "processes": self.processes,
        }

    def in_words(self) -> str:
        """One line."""
        tried, edges = len(self.scores), (min(self.scores), max(self.scores))
        edge = f" (at the edge of {edges[0]:g} to {edges[1]:g})" if tried > 1 and self.chosen in edges else ""
        return (
            f"features of {self.rows:,} x {self.width:,}; {self.classifier}: {self.name} {self.chosen:g} of {tried} "
            f"tried{edge}, validation {self.metric} {self.scores[self.chosen]:.4g}"
        )


def fit_features(
    recipe: Recipe, task: TaskData, loaded: LoadedModel, applied: Applied, trainer: FinetuneTrainer, samples: Samples
) -> Fitted:
    """Fits the head of the trainer's model, in place; kNN puts the model into a wrapper, in `applied` and trainer too.

    Raises:
        UserError: the features are not those of the checkpoint alone, the output layer is not linear, or the launcher
            shards the model.
    """
    started = time.perf_counter()
    if launcher_shards_the_model():
        raise UserError("strategy=features does not run under FSDP or DeepSpeed: use one process, or DDP.")
    model: Any = applied.model
    name = output_layer(model, applied.anatomy)
    check_layer(model, name, loaded, recipe)
    if trainer.prefix is not None:
        samples = replace(samples, collate=trainer.prefix.collate_prepared)
    trainer.target_scale = None  # the fit answers in the targets' own unit
    device, size = trainer.args.device, trainer.args.eval_batch_size

    def features_of(rows: Any) -> np.ndarray:
        return pooled_features(model, name, rows, samples.collate, size, device)

    def fit() -> tuple[Fitted, Linear | Neighbours]:
        train, validation = features_of(samples.train), features_of(samples.validation)
        check_finite(trainer, {"train": train, "validation": validation})
        check_linear(model, name, train, samples, device, recipe)
        return _best_fit(recipe, task, trainer, train, validation, started)

    fitted, kept = together(fit)
    if isinstance(kept, Linear):
        _put_linear(model.get_submodule(name), kept)
    else:
        trainer.release_prefix()  # another model answers from here on
        applied.model = put_neighbours(model, name, kept, recipe)
        trainer.model = trainer.model_wrapped = applied.model
        applied.model.to(device)
    if trainer.args.world_size > 1:
        for tensor in applied.model.state_dict().values():  # the same to the last bit
            distributed.broadcast(tensor, src=0)
    say(fitted.in_words())
    return fitted


def pooled_features(
    model: nn.Module, layer: str, samples: Any, collate: Any, batch_size: int = 32, device: Any = None
) -> np.ndarray:
    """What a model's output layer receives, (N, D) float64 in the order of the samples; of a text in windows, the mean.

    Args:
        model: a classification model.
        layer: name of its output layer.
        samples: see `predict_logits`.
        collate: see `predict_logits`.
        batch_size: samples at a time.
        device: where to run.
    """
    with _without(model, layer):
        return predict_logits(model, samples, collate, batch_size, device).astype(np.float64)


@contextmanager
def _without(model: nn.Module, layer: str) -> Iterator[None]:
    """The model without its output layer: whatever it does behind it happens to the features."""
    kept = model.get_submodule(layer)
    model.set_submodule(layer, nn.Identity())
    try:
        yield
    finally:
        model.set_submodule(layer, kept)


def _best_fit(
    recipe: Recipe,
    task: TaskData,
    trainer: FinetuneTrainer,
    train: np.ndarray,
    validation: np.ndarray,
    started: float,
) -> tuple[Fitted, Linear | Neighbours]:
    from sklearn.preprocessing import StandardScaler

    problem, outputs = task.labels.problem_type, task.labels.num_labels
    classifier = classifier_of(recipe, problem)
    metric = trainer.args.metric_for_best_model or "loss"
    sign = 1.0 if trainer.args.greater_is_better else -1.0
    targets, wanted = np.asarray(task.train["label"]), np.asarray(task.validation["label"])
    if problem != "single_label_classification":
        targets, wanted = targets.astype(np.float64), wanted.astype(np.float32)
    scaler = StandardScaler().fit(train)
    standard, unseen = scaler.transform(train), scaler.transform(validation)
    kept: Linear | Neighbours | None = None
    scores: dict[float, float] = {}
    best, chosen = -np.inf, 0.0
    for value in grid_of(recipe, classifier, len(train)):
        fit: Linear | Neighbours
        if classifier == "knn":
            fit = fit_neighbours(int(value), standard, targets, problem, outputs, scaler.mean_, scaler.scale_)
        else:
            fit = fit_linear(classifier, value, standard, targets, problem, outputs)
        measured = trainer.compute_metrics(EvalPrediction(fit.logits(unseen).astype(np.float32), wanted))  # type: ignore[misc]
        scores[value] = float(measured[metric])
        if kept is None or sign * scores[value] > best:  # of equals the strongest; a score of NaN never wins
            kept, chosen = fit, value
            best = sign * scores[value] if np.isfinite(scores[value]) else -np.inf
    if isinstance(kept, Linear):
        kept = kept.on_raw(scaler.mean_, scaler.scale_)
    fitted = Fitted(
        classifier,
        GRIDS[classifier][0],
        chosen,
        scores,
        metric,
        len(train),
        train.shape[1],
        time.perf_counter() - started,
        trainer.args.world_size,
    )
    assert kept is not None  # a grid has at least one value
    return fitted, kept


@torch.no_grad()
def _put_linear(layer: Any, fit: Linear) -> None:
    layer = own_layer(layer)
    layer.weight.copy_(torch.from_numpy(fit.weight).reshape(layer.weight.shape))
    layer.bias.copy_(torch.from_numpy(fit.bias))
