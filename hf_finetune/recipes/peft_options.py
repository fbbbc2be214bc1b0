"""The options of peft's methods that a recipe may set: a table, so that a typo is found before peft is imported.

A test holds it against peft's own configuration classes: each of their fields is an option here or owned by us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from hf_finetune.recipes.section import Names, Positive, Probability

# (type, the type in words)
_COUNT = (PositiveInt, "a whole number of at least 1")
_SEED = (NonNegativeInt, "a whole number of at least 0")
_SCALE = (Positive, "a number more than 0")
_DROPOUT = (Probability, "a number of at least 0 and less than 1")
_SWITCH = (bool, "true or false")
_FACTOR = (Annotated[int, Field(ge=-1)], "a whole number, or -1 for the most even split")
_LAYERS = (Names, "a list of module name endings")

_LYCORIS = {
    "r": _COUNT,
    "alpha": _SCALE,
    "rank_dropout": _DROPOUT,
    "module_dropout": _DROPOUT,
    "use_effective_conv2d": _SWITCH,
}
OPTIONS: dict[str, dict[str, tuple[Any, str]]] = {
    "ia3": {"feedforward_modules": _LAYERS},
    "vera": {"r": _COUNT, "projection_prng_key": _SEED, "vera_dropout": _DROPOUT, "d_initial": _SCALE},
    "loha": _LYCORIS,
    "lokr": {**_LYCORIS, "decompose_both": _SWITCH, "decompose_factor": _FACTOR, "rank_dropout_scale": _SWITCH},
    "oft": {
        "r": _COUNT,
        "oft_block_size": _COUNT,
        "module_dropout": _DROPOUT,
        "coft": _SWITCH,
        "eps": _SCALE,
        "block_share": _SWITCH,
        "use_cayley_neumann": _SWITCH,
        "num_cayley_neumann_terms": _COUNT,
    },
    "boft": {
        "boft_block_size": _COUNT,
        "boft_block_num": _COUNT,
        "boft_dropout": _DROPOUT,
    },
}
_TARGETS = "say which layers with strategy.targets, and leave out the others"
_START = "adapters begin with the pretrained model's own output"
_ONE_RANK = "one r and alpha hold for all layers; strategy.targets chooses the layers"
_REVISION = "the checkpoint and its commit are model.checkpoint and model.revision"
OWNED = {
    "task_type": "the recipe's task decides it",
    "peft_type": "say it with strategy.method",
    "modules_to_save": "the head always learns and is saved; model.head chooses it",
    "target_modules": "say it with strategy.targets",
    "exclude_modules": _TARGETS,
    "layers_to_transform": _TARGETS,
    "layers_pattern": _TARGETS,
    "base_model_name_or_path": _REVISION,
    "revision": _REVISION,
    "auto_mapping": _REVISION,
    "peft_version": "peft writes it",
    "inference_mode": "a run trains; what it saves is for inference",
    "fan_in_fan_out": "the kind of layer decides it",
    "bias": "biases stay as they are beside adapters; strategy=bitfit lets them learn",
    "init_weights": _START,
    "init_ia3_weights": _START,
    "save_projection": "projections are always saved: drawn anew they may differ on another machine",
    # Without its CUDA extension, which it compiles on the spot, peft takes 1 and only warns.
    "boft_n_butterfly_factor": "it would depend on the machine; peft takes 1 wherever it cannot compile for a GPU",
    "rank_pattern": _ONE_RANK,
    "alpha_pattern": _ONE_RANK,
}


def converted(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with text taken as each one's type; what is wrong stays as it is, for `option_faults` to say."""
    return {name: _value(method, name, value)[0] for name, value in options.items()}


def option_faults(method: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) for each option that the method does not have, that is ours, or that has a wrong value."""
    have = ", ".join(OPTIONS.get(method, {}))
    for name, value in options.items():
        if name in OPTIONS.get(method, {}):
            if not _value(method, name, value)[1]:
                yield name, f"{value!r} must be {OPTIONS[method][name][1]}"
        elif name in OWNED:
            yield name, f"is not an option here: {OWNED[name]}"
        else:
            yield name, f"{method} has no such option; it has {have}"
    for one, other in (("r", "oft_block_size"), ("boft_block_size", "boft_block_num")):
        if one in options and other in options:
            yield other, f"give it or {one}: each follows from the other and the layer's width"


def _value(method: str, name: str, value: Any) -> tuple[Any, bool]:
    """The value in the option's type, and whether it fits."""
    if name not in OPTIONS.get(method, {}):
        return value, False
    try:
        return _adapter(method, name).validate_python(value), True
    except ValidationError:
        return value, False


@cache
def _adapter(method: str, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(OPTIONS[method][name][0])
