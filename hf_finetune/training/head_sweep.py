"""Many heads at once on the features that are kept: each rate with each weight decay, the best on validation chosen.

The heads are stacked and see the same batches, so that a pass over the features serves all of them. Each learns as it
would alone: its own gradients, clipping, optimizer state and schedule. The run then trains the chosen one in the
ordinary way, from the same start and over the same batches.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.optimization import get_scheduler
from transformers.trainer_utils import EvalPrediction

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.model.replay import attached
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.cached_samples import CachedSamples

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
        UserError: the features are not kept, or there are several processes.
    """
    sweep = getattr(recipe.strategy, "sweep", None)
    if sweep is None:
        return {}
    args = trainer.args
    if begun is None:
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
    sign = 1.0 if args.greater_is_better else -1.0
    best = max(range(len(pairs)), key=lambda place: sign * scores[place] if scores[place] == scores[place] else -1e30)
    seconds = time.perf_counter() - started
    tried = ", ".join(f"{rate:g} / {decay:g}: {score:.4f}" for (rate, decay), score in zip(pairs, scores, strict=True))
    say(f"sweep of {len(pairs)} heads in {seconds:.1f} s, validation {args.metric_for_best_model} by rate / decay:")
    say(f"  {tried}")
    each = [{"learning_rate": r, "weight_decay": d, "score": s} for (r, d), s in zip(pairs, scores, strict=True)]
    rate, decay = pairs[best]
    return {
        "learning_rate": rate,
        "weight_decay": decay,
        "metric": args.metric_for_best_model,
        "tried": each,
        "seconds": round(seconds, 4),
    }


def refuse_without_features(trainer: FinetuneTrainer, what: str) -> None:
    """Raise a UserError where the whole head cannot be trained on kept features, in one process."""
    kept = trainer.prefix is not None and all(stage is not None for stage in trainer.prefix.stages)
    if not kept or not attached(trainer.applied.model).bare:
        raise UserError(
            f"{what} works on features that are computed once, and here they are not (see the line about the frozen "
            "prefix): remove it, or what speaks against keeping them."
        )
    if trainer.args.world_size > 1:
        raise UserError(f"{what} runs in one process: features take little work. Start it without a launcher.")


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
        for (rate, decay), copy in zip(pairs, self.copies, strict=True):
            own = trainer.applied.parameter_groups(rate, decay)
            groups += [{**group, "params": [copy[names[id(p)]] for p in group["params"]]} for group in own]
        kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
        options.pop("lr", None)
        self.optimizer = kind(groups, **options)

    def scores(self) -> list[float]:
        """The best validation score of each head over the epochs."""
        trainer, args = self.trainer, self.trainer.args
        loader = trainer.get_train_dataloader()
        epochs = int(args.num_train_epochs)
        steps = len(loader) * epochs
        schedule: Any = get_scheduler(
            args.lr_scheduler_type,
            optimizer=self.optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
        better = max if args.greater_is_better else min
        best: list[float] = []
        for epoch in range(epochs):
            for listener in (loader, loader.dataset):
                if hasattr(listener, "set_epoch"):
                    listener.set_epoch(epoch)
            trainer.applied.model.train()
            for batch in loader:
                self._step(trainer._prepare_inputs(batch))
                schedule.step()
            found = self._validated()
            best = [better(pair) for pair in zip(best, found, strict=True)] if best else found
        return best

    def _step(self, inputs: dict[str, Any]) -> None:
        trainer = self.trainer
        labels = inputs.pop("labels")
        if trainer.target_scale is not None:
            labels = trainer.target_scale.standard(labels)
        with trainer._precision(trainer.applied.model):
            logits = self._logits(inputs)
        total = torch.stack([trainer.objective.loss(each, labels, training=True) for each in logits]).sum()
        total.backward()
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
        if trainer.target_scale is not None:
            logits = trainer.target_scale.natural(logits)
        assert samples.labels is not None
        wanted = samples.labels.numpy()
        name = trainer.args.metric_for_best_model or "loss"
        measure: Any = trainer.compute_metrics
        return [float(measure(EvalPrediction(each.cpu().numpy(), wanted))[name]) for each in logits]
