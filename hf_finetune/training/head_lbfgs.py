"""The head by L-BFGS on the features that are kept: all rows at once, to the minimum of the loss."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.trainer_utils import EvalPrediction

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.model.replay import GIVEN, attached
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.cached_samples import CachedSamples
from hf_finetune.training.features import Fitted
from hf_finetune.training.features_checks import check_finite
from hf_finetune.training.head_checks import refuse_without_features, weight_decays

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer

_AT_ONCE = 16384  # rows of a pass through the head
_ITERATIONS, _HISTORY = 500, 20


def fit_head(recipe: Recipe, trainer: FinetuneTrainer) -> Fitted:
    """Minimise the recipe's loss plus weight decay (half its sum of squares), for each weight decay of the sweep.

    The head is in eval mode: what is random in it would leave nothing to converge to.

    Args:
        recipe: its strategy is head with solver=lbfgs.
        trainer: with kept features; its model's head is fitted in place, from its own start.

    Returns:
        what was chosen on validation.

    Raises:
        UserError: the features are not kept, or a loss or weight is no number.
    """
    refuse_without_features(trainer, "strategy.solver=lbfgs")
    started = time.perf_counter()
    decays = weight_decays(recipe, trainer.args.weight_decay)
    model, samples = trainer.applied.model, trainer.train_dataset
    assert isinstance(samples, CachedSamples)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in learning]
    metric = trainer.args.metric_for_best_model or "loss"
    sign = 1.0 if trainer.args.greater_is_better else -1.0
    scores: dict[float, float] = {}
    best, chosen, kept = -np.inf, decays[0], start
    model.eval()
    for decay in decays:
        _put(learning, start)
        _minimise(trainer, learning, decay)
        scores[decay] = value = _score(trainer, metric)
        if sign * value > best or kept is start:
            best = sign * value if np.isfinite(value) else -np.inf
            chosen, kept = decay, [parameter.detach().clone() for parameter in learning]
    if not all(bool(torch.isfinite(values).all()) for values in kept):
        raise UserError(f"L-BFGS gave weights that are no numbers: validation {metric} by weight decay {scores}.")
    _put(learning, kept)
    width = int(np.prod(attached(model).border.shape.sizes[1:]))
    seconds = time.perf_counter() - started
    fitted = Fitted("lbfgs", "weight_decay", chosen, scores, metric, len(samples), width, seconds, 1)
    say(fitted.in_words())
    return fitted


def _minimise(trainer: FinetuneTrainer, learning: list[torch.nn.Parameter], decay: float) -> None:
    model = trainer.applied.model
    groups = trainer.applied.parameter_groups(1.0, decay)
    decayed = [parameter for group in groups if group["weight_decay"] > 0 for parameter in group["params"]]
    batches = list(_batches(trainer, trainer.train_dataset))
    _check_finite(trainer, [given[GIVEN] for given, _ in batches])
    count = sum(len(labels) for _, labels in batches)
    solver = torch.optim.LBFGS(
        learning,
        max_iter=_ITERATIONS,
        history_size=_HISTORY,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        total = torch.zeros((), device=trainer.args.device)
        for given, labels in batches:
            loss = trainer.objective.training(attached(model)(model, given).logits, labels) * (len(labels) / count)
            loss.backward()
            total += loss.detach()
        penalty = sum((0.5 * decay * parameter.square().sum() for parameter in decayed), total.new_zeros(()))
        if penalty.requires_grad:
            penalty.backward()
        return total + penalty.detach()

    solver.step(closure)  # type: ignore[no-untyped-call]
    solver.zero_grad()


def _check_finite(trainer: FinetuneTrainer, features: list[torch.Tensor]) -> None:
    rows = torch.cat([torch.isfinite(part.flatten(1)).all(dim=1) for part in features])
    check_finite(trainer, {"train": rows.float().where(rows, torch.nan).cpu().numpy()[:, None]})


def _batches(trainer: FinetuneTrainer, samples: Any) -> Any:
    """All rows of a split: what the model takes, and labels in the unit of training."""
    for start in range(0, len(samples), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(samples)))
        inputs: Any = trainer._prepare_inputs(trainer.data_collator(samples.__getitems__(rows)))  # type: ignore[arg-type]
        labels = inputs["labels"]
        if trainer.target_scale is not None:
            labels = trainer.target_scale.standard(labels)
        yield {GIVEN: inputs[GIVEN]}, labels


@torch.no_grad()
def _score(trainer: FinetuneTrainer, metric: str) -> float:
    model, samples = trainer.applied.model, trainer.eval_dataset
    assert isinstance(samples, CachedSamples)
    assert samples.labels is not None
    logits = torch.cat([attached(model)(model, given).logits.float() for given, _ in _batches(trainer, samples)])
    if trainer.target_scale is not None:
        logits = trainer.target_scale.natural(logits)
    measure: Any = trainer.compute_metrics
    return float(measure(EvalPrediction(logits.cpu().numpy(), samples.labels.numpy()))[metric])


@torch.no_grad()
def _put(learning: list[torch.nn.Parameter], values: list[torch.Tensor]) -> None:
    for parameter, value in zip(learning, values, strict=True):
        parameter.copy_(value)
