"""Many heads at once on the features that are kept: each rate with each weight decay, the best on validation chosen.

The heads are stacked and see the same batches, so that a pass over the features serves all of them. Each learns as it
would alone: its own gradients, clipping, optimizer state and schedule. The run then trains the chosen one in the
ordinary way, from the same start and over the same batches.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_utils import EvalPrediction

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.model.replay import attached
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.cached_samples import CachedSamples
from hf_finetune.training.head_checks import refuse_processes, refuse_without_features
from hf_finetune.training.stages import schedule_of

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer


def sweep_head(
    recipe: Recipe, trainer: FinetuneTrainer, begun: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Choose `learning_rate` and `weight_decay` among those of `strategy.sweep`, and give them to the trainer.

    Args:
        recipe: its strategy perhaps with a sweep.
        trainer: with kept features.
        begun: what was chosen when the run began that this one goes on with; it is taken again.

    Returns:
        under "sweep" what was chosen and each score; nothing without a sweep.

    Raises:
        UserError: the features are not kept, there are several processes, or no head has a score that is a number.
    """
    sweep = getattr(recipe.strategy, "sweep", None)
    if sweep is None:
        return {}
    args = trainer.args
    if begun is None:
        refuse_processes(args.world_size, "strategy.sweep")  # it was to go on, and no checkpoint is whole
        refuse_without_features(trainer, "strategy.sweep")
        begun = _sweep(sweep, trainer)
        origin = "the best of the sweep"
    else:
        origin = "what the sweep of this run has chosen"
    args.learning_rate, args.weight_decay = begun["learning_rate"], begun["weight_decay"]
    say(f"learning rate {args.learning_rate:g}, weight decay {args.weight_decay:g} ({origin})")
    if trainer.prefix is not None:
        trainer.prefix.swept = dict(begun)
    return {"sweep": dict(begun)}


def _sweep(sweep: Any, trainer: FinetuneTrainer) -> dict[str, Any]:
    args = trainer.args
    pairs = list(
        itertools.product(sweep.learning_rate or (args.learning_rate,), sweep.weight_decay or (args.weight_decay,))
    )
    started = time.perf_counter()
    with torch.random.fork_rng():
        scores = _Heads(trainer, pairs).scores()
    seconds = time.perf_counter() - started
    tried = ", ".join(f"{rate:g} / {decay:g}: {score:.4f}" for (rate, decay), score in zip(pairs, scores, strict=True))
    say(f"sweep of {len(pairs)} heads in {seconds:.1f} s, validation {args.metric_for_best_model} by rate / decay:")
    say(f"  {tried}")
    numbers = [score if math.isfinite(score) else None for score in scores]
    each = [{"learning_rate": r, "weight_decay": d, "score": s} for (r, d), s in zip(pairs, numbers, strict=True)]
    rate, decay = best_pair(pairs, scores, args.metric_for_best_model or "loss", bool(args.greater_is_better))
    return {
        "learning_rate": rate,
        "weight_decay": decay,
        "metric": args.metric_for_best_model,
        "tried": each,
        "seconds": round(seconds, 4),
    }


def best_pair(
    pairs: Sequence[tuple[float, float]], scores: Sequence[float], metric: str, greater_is_better: bool
) -> tuple[float, float]:
    """The pair of rate and weight decay with the best score: of equals the largest weight decay, then the first.

    Raises:
        UserError: no score is a number.
    """
    sign = 1.0 if greater_is_better else -1.0
    numbers = [place for place, score in enumerate(scores) if math.isfinite(score)]
    if not numbers:
        tried = ", ".join(f"{rate:g} / {decay:g}" for rate, decay in pairs)
        raise UserError(
            f"strategy.sweep: validation {metric} is no number for any rate / weight decay of {tried}. Give smaller "
            "rates, or look for extreme inputs and targets in the rows."
        )
    return pairs[max(numbers, key=lambda place: (sign * scores[place], pairs[place][1]))]


class _Called(nn.Module):
    """A model whose forward pass starts behind its prefix."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Any]) -> torch.Tensor:
        logits: torch.Tensor = attached(self.model)(self.model, inputs).logits
        return logits


class _Heads:
    def __init__(self, trainer: FinetuneTrainer, pairs: list[tuple[float, float]]) -> None:
        self.trainer, self.pairs = trainer, pairs
        model = trainer.applied.model
        self.called = _Called(model)
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.copies = [{name: p.detach().clone().requires_grad_() for name, p in learning.items()} for _ in pairs]
        names = {id(p): name for name, p in learning.items()}
        groups: list[dict[str, Any]] = []
        self.rates: list[float] = []  # of each group's pair
        for (rate, decay), copy in zip(pairs, self.copies, strict=True):
            own = trainer.applied.parameter_groups(rate, decay)
            groups += [{**group, "params": [copy[names[id(p)]] for p in group["params"]]} for group in own]
            self.rates += [rate] * len(own)
        kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
        options.pop("lr", None)
        self.optimizer = kind(groups, **options)
        self.sound = torch.ones(len(pairs), dtype=torch.bool, device=trainer.args.device)

    def scores(self) -> list[float]:
        """The best validation score of each head over the epochs; NaN where its loss came to be no number."""
        trainer, args = self.trainer, self.trainer.args
        loader = trainer.get_train_dataloader()
        epochs = int(args.num_train_epochs)
        steps = len(loader) * epochs
        shares = {rate: schedule_of(args, steps, rate) for rate in self.rates}
        schedule = LambdaLR(self.optimizer, [shares[rate] for rate in self.rates])
        better = max if args.greater_is_better else min
        best = [math.nan] * len(self.pairs)
        for epoch in range(epochs):
            for listener in (loader, loader.dataset):
                if hasattr(listener, "set_epoch"):
                    listener.set_epoch(epoch)
            trainer.applied.model.train()
            for batch in loader:
                self._step(trainer._prepare_inputs(batch))
                schedule.step()
            found = self._validated()
            # What is no number is the best of none; a head that has come to it is out, as its run would have ended.
            best = [
                better((number for number in both if math.isfinite(number)), default=math.nan) if sound else math.nan
                for both, sound in zip(zip(best, found, strict=True), self.sound.tolist(), strict=True)
            ]
        return best

    def _step(self, inputs: dict[str, Any]) -> None:
        trainer = self.trainer
        labels = inputs.pop("labels")
        if trainer.target_scale is not None:
            labels = trainer.target_scale.standard(labels)
        with trainer._precision(trainer.applied.model):
            logits = self._logits(inputs)
        losses = torch.stack([trainer.objective.loss(each, labels, training=True) for each in logits])
        self.sound &= torch.isfinite(losses.detach())
        losses.sum().backward()
        for copy in self.copies:
            if trainer.args.max_grad_norm > 0:
                nn.utils.clip_grad_norm_(copy.values(), trainer.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _logits(self, inputs: dict[str, Any]) -> torch.Tensor:
        """(heads, B, C)."""
        stacked = {f"model.{name}": torch.stack([copy[name] for copy in self.copies]) for name in self.copies[0]}

        def one(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
            found: torch.Tensor = torch.func.functional_call(self.called, parameters, (inputs,))
            return found

        return torch.func.vmap(one, randomness="different")(stacked)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _validated(self) -> list[float]:
        trainer = self.trainer
        trainer.applied.model.eval()
        samples: Any = trainer.eval_dataset
        assert isinstance(samples, CachedSamples)
        parts = []
        for start in range(0, len(samples), 4096):
            rows = range(start, min(start + 4096, len(samples)))
            batch: Any = trainer.data_collator(samples.__getitems__(rows))  # type: ignore[arg-type]
            inputs = trainer._prepare_inputs(batch)
            inputs.pop("labels")
            parts.append(self._logits(inputs).float())
        logits = torch.cat(parts, 1)
        self.sound &= torch.isfinite(logits).flatten(1).all(1)
        if trainer.target_scale is not None:
            logits = trainer.target_scale.natural(logits)
        assert samples.labels is not None
        wanted = samples.labels.numpy()
        name = trainer.args.metric_for_best_model or "loss"
        measure: Any = trainer.compute_metrics
        return [float(measure(EvalPrediction(each.cpu().numpy(), wanted))[name]) for each in logits]
