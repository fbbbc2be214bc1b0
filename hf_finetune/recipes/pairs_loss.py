"""What is minimised, and which weights are kept: settings that cannot go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.loss_section import Average, Loss

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

Faults = Iterator[tuple[str, str]]

# problem type -> the losses it takes; the first is what `auto` means.
LOSSES: dict[str, tuple[str, ...]] = {
    "single_label_classification": ("cross_entropy", "focal", "bce", "coral"),
    "multi_label_classification": ("bce", "focal"),
    "regression": ("mse", "mae", "huber"),
}
_NUMBERS = LOSSES["regression"]


def faults_of_loss(recipe: Recipe) -> Faults:
    """Every pair of settings of `loss`, `average` and what they touch that makes no sense together."""
    yield from _kind(recipe)
    yield from _classes_alone(recipe)
    yield from _imbalance(recipe)
    yield from _near_the_checkpoint(recipe)
    yield from _nothing_to_minimise(recipe)
    if recipe.average.soup is None and recipe.average.soup_size != Average().soup_size:
        yield "average.soup_size", "is for a soup: add average.soup=greedy or uniform"


def _kind(recipe: Recipe) -> Faults:
    loss, problem = recipe.loss, recipe.data.problem_type
    if problem and loss.kind != "auto" and loss.kind not in LOSSES[problem]:
        allowed = ", ".join(("auto", *LOSSES[problem]))
        yield "loss.kind", f"{loss.kind} is not a loss of {problem} (data.problem_type): use {allowed}"
    kinds = [loss.kind, *(task.loss for task in recipe.tasks.values())]
    if loss.gamma != Loss().gamma and "focal" not in kinds:
        yield "loss.gamma", f"is for the focal loss, and loss.kind is {loss.kind}: use loss.kind=focal"
    if loss.delta != Loss().delta and "huber" not in kinds:
        yield "loss.delta", f"is for the Huber loss, and loss.kind is {loss.kind}: use loss.kind=huber"
    if loss.kind == "coral" and recipe.model.head.kind == "cosine":
        yield "loss.kind", "coral needs a linear output layer with biases, and model.head.kind is cosine: use linear"


def _classes_alone(recipe: Recipe) -> Faults:
    """What means something for classes alone, or for one class a row alone."""
    loss, problem = recipe.loss, recipe.data.problem_type
    what = f"data.problem_type is {problem}" if problem else f"loss.kind is {loss.kind}"
    numbers = problem == "regression" or loss.kind in _NUMBERS
    several = problem == "multi_label_classification"
    if loss.class_weights is not None and numbers:
        yield "loss.class_weights", f"are for classes, and {what}: remove them"
    if loss.class_weights == "balanced" and several:
        yield "loss.class_weights", "balanced is for one class a row, and the task is multi-label: give weights by name"
    if loss.sampling == "balanced" and (numbers or several):
        yield "loss.sampling", f"balanced draws every class equally often, and {what}: use shuffle"
    if loss.logit_adjustment and (numbers or several or loss.kind in ("bce", "coral")):
        reason = what if numbers or several else f"loss.kind is {loss.kind}"
        yield "loss.logit_adjustment", f"shifts the logits of a softmax, and {reason}: use cross_entropy or focal"
    smoothing = recipe.training.values().get("label_smoothing_factor")
    if smoothing and loss.kind in (*_NUMBERS, "coral"):
        yield (
            "training.label_smoothing_factor",
            f"spreads a share evenly over classes without an order, and loss.kind is {loss.kind}: remove it",
        )


def _imbalance(recipe: Recipe) -> Faults:
    loss = recipe.loss
    cures = {
        "class_weights=balanced": loss.class_weights == "balanced",
        "sampling=balanced": loss.sampling == "balanced",
        "logit_adjustment": loss.logit_adjustment > 0,
    }
    chosen = [name for name, on in cures.items() if on]
    if len(chosen) > 1:
        yield "loss", f"{' and '.join(chosen)} each make up for rare classes, together they overdo it: keep one"
    order = recipe.training.values().get("train_sampling_strategy", "random")
    if loss.sampling == "balanced" and order != "random":
        yield "training.train_sampling_strategy", f"{order} and loss.sampling=balanced are two orders: keep one"


def _near_the_checkpoint(recipe: Recipe) -> Faults:
    if not recipe.loss.l2_sp:
        return
    kind = recipe.strategy.kind
    frozen = ("head", "lora", "peft")
    if kind in frozen:
        yield "loss.l2_sp", f"holds pretrained weights that learn, and with strategy={kind} none does: remove it"
    if kind == "scratch":
        yield "loss.l2_sp", "holds weights near the checkpoint's, and strategy=scratch takes none from it: remove it"
    if recipe.model.reinit_blocks:
        yield "loss.l2_sp", "would hold the blocks of model.reinit_blocks near random weights: keep one of the two"


def _nothing_to_minimise(recipe: Recipe) -> Faults:
    if recipe.strategy.kind != "features":
        return
    if recipe.loss != Loss():
        yield "loss", "strategy=features is fitted by scikit-learn, which minimises its own: remove loss"
    if recipe.average.ema is not None or recipe.average.soup is not None:
        yield "average", "strategy=features fits once, there are no weights to average: remove average"
