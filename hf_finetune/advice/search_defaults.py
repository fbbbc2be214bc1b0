"""What is searched where no space is given: what matters most for each strategy, around the recipe's own values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.advice.search_space import own_value
from hf_finetune.errors import UserError
from hf_finetune.recipes.rates import default_learning_rate, default_rate

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

# As a rule the best rate of a strategy is not ten times its default, nor a tenth: far above, pretrained layers are
# destroyed and new ones diverge.
_BELOW, _ABOVE = 8.0, 8.0
_WEIGHT_DECAY = {"training.weight_decay": [0, 0.01, 0.05, 0.1]}
_LOWER_BLOCKS = [None, 0.65, 0.75, 0.85, 0.95]
_NEW_HEAD = {"strategy.head_lr_multiplier": [1, 3, 10, 30]}

_FEATURES = {"strategy.layer": ["last", "middle"], "strategy.classifier": ["auto", "svm", "knn"]}

# strategy kind -> keys beside the learning rate
_BESIDE: dict[str, dict[str, Any]] = {
    "full": {**_WEIGHT_DECAY, **_NEW_HEAD, "strategy.layer_decay": _LOWER_BLOCKS},
    "head": _WEIGHT_DECAY,
    "freeze": {**_WEIGHT_DECAY, **_NEW_HEAD, "strategy.train_blocks": {"low": 1, "high": 3}},
    "lora": {
        "strategy.r": [4, 8, 16, 32],
        "strategy.alpha": [8, 16, 32, 64],
        "strategy.dropout": [0, 0.05, 0.1],
        "training.weight_decay": [0, 0.01, 0.1],
    },
    "peft": _WEIGHT_DECAY,
    "bitfit": {**_WEIGHT_DECAY, **_NEW_HEAD},
    "norms": {**_WEIGHT_DECAY, **_NEW_HEAD},
    "scratch": {"training.weight_decay": [0, 0.01, 0.05, 0.1, 0.3]},
    "lp_ft": {**_WEIGHT_DECAY, "strategy.layer_decay": _LOWER_BLOCKS},
    "gradual": {**_WEIGHT_DECAY, **_NEW_HEAD, "strategy.layer_decay": _LOWER_BLOCKS},
}


def default_space(recipe: Recipe) -> dict[str, Any]:
    """The space of a recipe's strategy, as a space's YAML has it.

    Raises:
        UserError: a strategy whose settings do not say what is worth trying.
    """
    strategy: Any = recipe.strategy
    kind: str = strategy.kind
    if kind == "features":
        return {key: _with_own(recipe, key, values) for key, values in _FEATURES.items()}
    beside = _BESIDE.get(kind)
    if beside is None:
        raise UserError(
            f"strategy={kind} has no search space of its own: say what to try, such as "
            "space='{training.weight_decay: [0, 0.01, 0.1]}'"
        )
    if getattr(strategy, "solver", "adamw") == "lbfgs":  # takes no steps, so it has no rate
        return {"training.weight_decay": {"low": 1e-6, "high": 1.0, "log": True}}
    rate = recipe.training.values().get("learning_rate") or default_learning_rate(recipe)
    space: dict[str, Any] = {"training.learning_rate": _around(float(rate))}
    if kind == "lp_ft":
        space["strategy.head_learning_rate"] = _around(strategy.head_learning_rate or default_rate("head", recipe))
    if getattr(strategy, "zones", None) is not None:  # says the rates of lower blocks already
        beside = {key: values for key, values in beside.items() if key != "strategy.layer_decay"}
    return {**space, **{key: _with_own(recipe, key, values) for key, values in _not_swept(recipe, beside).items()}}


def _with_own(recipe: Recipe, key: str, values: Any) -> Any:
    """The values with the recipe's own among them: what is learnt of others is learnt around it."""
    own = own_value(recipe, key)
    if isinstance(values, dict):
        return values if own is None else {**values, "high": max(own, values["high"])}
    return values if own in values else [own, *values]


def _around(rate: float) -> dict[str, Any]:
    return {"low": float(f"{rate / _BELOW:.2g}"), "high": float(f"{rate * _ABOVE:.2g}"), "log": True}


def _not_swept(recipe: Recipe, space: dict[str, Any]) -> dict[str, Any]:
    """Without the weight decay where the run tries several by itself (`strategy.sweep`)."""
    sweep = getattr(recipe.strategy, "sweep", None)
    swept = sweep is not None and sweep.weight_decay is not None
    return {key: values for key, values in space.items() if not (swept and key == "training.weight_decay")}
