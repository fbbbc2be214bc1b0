"""What cannot go together about kept features: views, and solvers that need them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.pairs_stages import NO_SCHEDULE

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_cache(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, message) of every fault."""
    cache, data = recipe.cache, recipe.data
    if cache.views is not None:
        if cache.prefix == "off":
            yield "cache.views", "keeps views of images, and cache.prefix is off: remove it, or use auto"
        if recipe.task == "text-classification":
            yield "cache.views", "keeps views of images, and the task is text-classification: remove it"
        if data.augment == "none":
            yield "cache.views", "nothing changes images here (data.augment=none): remove it, or name changes"
        for name in ("mixup", "cutmix"):
            if getattr(data, name):
                yield "cache.views", f"data.{name} mixes the images anew in every batch: remove one of the two"
    yield from _solver(recipe)


def _solver(recipe: Recipe) -> Iterator[tuple[str, str]]:
    strategy = recipe.strategy
    if strategy.kind == "stages":
        for place, stage in enumerate(strategy.stages):
            inner = stage.strategy
            if inner.kind == "head" and (inner.solver != "adamw" or inner.sweep is not None):
                yield f"strategy.stages.{place}.strategy", "solver and sweep are for strategy=head alone: remove them"
        return
    if strategy.kind != "head":
        return
    for name, wanted in (("solver", strategy.solver != "adamw"), ("sweep", strategy.sweep is not None)):
        if wanted and recipe.cache.prefix == "off":
            yield f"strategy.{name}", "works on kept features, and cache.prefix is off: use auto"
        if wanted and recipe.distill is not None:
            yield f"strategy.{name}", "works on kept features, and a teacher answers whole images: remove one of them"
    if strategy.sweep is not None and strategy.sweep.learning_rate is None and strategy.sweep.weight_decay is None:
        yield "strategy.sweep", "names nothing to try: give learning_rate or weight_decay, each a list"
    yield from _sweep(recipe)
    if strategy.solver == "lbfgs":
        yield from _lbfgs(recipe)
    elif strategy.sweep is not None:
        yield from _many_at_once(recipe)


def _sweep(recipe: Recipe) -> Iterator[tuple[str, str]]:
    sweep = getattr(recipe.strategy, "sweep", None)
    if sweep is None:
        return
    values = recipe.training.values()
    for name in ("learning_rate", "weight_decay"):
        if getattr(sweep, name) is not None and name in values:
            yield f"training.{name}", f"strategy.sweep.{name} chooses it: remove one of the two"
    if values.get("max_steps", -1) > 0 or values.get("gradient_accumulation_steps", 1) > 1:
        yield "strategy.sweep", "counts epochs of whole batches: remove max_steps and gradient_accumulation_steps"
    epochs = float(values.get("num_train_epochs", 3))
    if epochs < 1 or epochs != int(epochs):
        yield "strategy.sweep", f"counts whole epochs, and training.num_train_epochs is {epochs:g}: give a whole number"
    if recipe.loss.r_drop or recipe.loss.kind == "coral" or recipe.loss.l2_sp:
        yield "strategy.sweep", "tries plain losses of the logits: remove r_drop, coral and l2_sp"
    if recipe.average.ema is not None or recipe.average.soup is not None or recipe.evaluation.patience is not None:
        yield "strategy.sweep", "tries whole runs without averages: remove average and evaluation.patience"
    if values.get("optim", "adamw") not in ("adamw", "adamw_torch", "adamw_torch_fused"):
        yield "strategy.sweep", f"tries rates of AdamW, and training.optim is {values['optim']}: remove one of them"


def _many_at_once(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What heads that are trained at once cannot have each for itself."""
    values, head = recipe.training.values(), recipe.model.head
    if values.get("skip_nonfinite_steps"):
        yield (
            "training.skip_nonfinite_steps",
            "leaves out steps of one run, and strategy.sweep trains several at once: remove one of them",
        )
    kind = values.get("lr_scheduler_type")
    if kind in NO_SCHEDULE:
        yield (
            "training.lr_scheduler_type",
            f"{kind} follows the validation score of one run, and strategy.sweep trains several at once: use linear, "
            "cosine or constant",
        )
    if head.kind == "mlp" and head.norm == "batch":
        yield (
            "model.head.norm",
            "batch keeps statistics that the heads of strategy.sweep would share: use layer or none",
        )


def _lbfgs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    sweep = getattr(recipe.strategy, "sweep", None)
    values = recipe.training.values()
    if sweep is not None and sweep.learning_rate is not None:
        yield "strategy.sweep.learning_rate", "L-BFGS finds its own steps: sweep weight_decay alone"
    for name in ("learning_rate", "optim", "max_steps", "num_train_epochs"):
        if name in values:
            yield f"training.{name}", "L-BFGS goes to the minimum by its own steps: remove it, or use solver=adamw"
    if recipe.loss.r_drop or recipe.loss.kind == "coral" or recipe.loss.l2_sp:
        yield "strategy.solver", "lbfgs minimises a plain loss of the logits: remove r_drop, coral and l2_sp"
    if recipe.average.ema is not None or recipe.average.soup is not None:
        yield "strategy.solver", "lbfgs ends at one point, there is nothing to average: remove average"
