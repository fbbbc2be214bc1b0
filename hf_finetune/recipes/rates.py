"""The learning rate a strategy takes where a recipe gives none.

A rate tuned for one strategy is wrong for another: what is new (a head, adapters, random weights) takes a large one,
what is pretrained a small one, and a text Transformer a smaller one than an image model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.recipes.optimizer_names import RATE_OVER_ADAMW

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

_FULL = (1e-4, 3e-5)  # BERT's own advice for text is 2e-5 to 5e-5 (arXiv:1810.04805); a ViT bears more

# strategy kind -> (image, text), for AdamW with a batch of about 32. "Unmeasured": by reasoning, not tried.
_RATES = {
    "full": _FULL,
    "freeze": (2e-4, 5e-5),  # fewer layers to disturb than with full
    "head": (1e-3, 1e-3),  # a new layer on fixed features: nothing to forget
    "lora": (5e-4, 5e-4),  # adapters start at zero: about ten times full (arXiv:2106.09685, tables 9 to 11)
    # Unmeasured: scales beside fixed weights move a layer less for the same step than LoRA's matrices do.
    "peft.ia3": (5e-3, 5e-3),
    "peft.vera": (5e-3, 5e-3),
    # Unmeasured: near LoRA's, which they are relatives of.
    "peft.loha": (1e-3, 1e-3),
    "peft.lokr": (1e-3, 1e-3),
    "peft.oft": (1e-3, 1e-3),
    "peft.boft": (1e-3, 1e-3),
    "bitfit": (1e-3, 1e-3),  # unmeasured: a bias moves its layer less than a matrix does
    "norms": (1e-3, 1e-3),  # unmeasured: as few parameters as with bitfit, as near to where they start
    "lp_ft": _FULL,  # of the second stage; the first takes that of head
    "gradual": _FULL,
    # Unmeasured: random weights have nothing to forget and bear about ten times the rate of pretrained ones.
    "scratch": (1e-3, 2.5e-4),
    "features": (0.0, 0.0),  # fitted by scikit-learn, not by steps
    "auto": (0.0, 0.0),  # that of the strategy that it chooses
}

# Where lower blocks take less (layer_decay, zones) the rate is that of the highest, and bears more. ViT-Tiny on 5,000
# CIFAR-10 images: 0.9085 with decay 0.75 at 3e-4, against 0.891 to 0.8975 with one rate for all; text is unmeasured.
_LOWER_BELOW = 3.0


def default_learning_rate(recipe: Recipe) -> float:
    """The learning rate for the recipe's strategy and task.

    It is the rate of the pretrained layers where they learn (the head's is `head_lr_multiplier` times that), otherwise
    of what does learn. Of several stages it is that of the last.
    """
    strategy = recipe.strategy
    if strategy.kind == "stages":
        last = strategy.stages[-1]
        return last.learning_rate or rate_of(last.strategy, recipe)
    return rate_of(strategy, recipe)


def rate_of(strategy: Any, recipe: Recipe) -> float:
    """The learning rate of a strategy's settings, in the recipe itself or in one of its stages."""
    kind = f"peft.{strategy.method}" if strategy.kind == "peft" else strategy.kind
    lower_below = getattr(strategy, "zones", None) or (getattr(strategy, "layer_decay", None) or 1) < 1
    return default_rate(kind, recipe) * (_LOWER_BELOW if lower_below else 1.0)


def default_rate(kind: str, recipe: Recipe) -> float:
    """The learning rate of a kind of strategy ("lora", "peft.ia3") for the recipe's task and optimizer."""
    image, text = _RATES[kind]
    rate = image if recipe.task == "image-classification" else text
    return rate * RATE_OVER_ADAMW.get(recipe.training.values().get("optim", ""), 1.0)


def rates_of(recipe: Recipe, rate: float) -> tuple[float, ...]:
    """The rates that schedules of a run begin at: of its stages in their order, or all that a sweep over heads tries.

    Args:
        recipe: any.
        rate: the run's own, where the strategy names no other.
    """
    strategy = recipe.strategy
    if strategy.kind == "stages":
        return tuple(stage.learning_rate or rate_of(stage.strategy, recipe) for stage in strategy.stages)
    if strategy.kind == "lp_ft":
        return strategy.head_learning_rate or default_rate("head", recipe), rate
    return getattr(getattr(strategy, "sweep", None), "learning_rate", None) or (rate,)


def rate_in_words(recipe: Recipe, rate: float) -> str:
    """The rate for people: of every stage where they differ."""
    if recipe.strategy.kind == "stages":
        return ", then ".join(f"{each:g}" for each in rates_of(recipe, rate))
    if recipe.strategy.kind == "lp_ft":
        return f"{rates_of(recipe, rate)[0]:g} for the head alone, then {rate:g}"
    return f"{rate:g}"
