"""Adapters by peft on transformers and convolutional nets alike: where they go, and what their parameters are."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.adapter_files import remember_start
from hf_finetune.model.heads import seeded
from hf_finetune.model.quiet import quiet
from hf_finetune.strategy.peft_methods import LORA, Method, configuration, ends_with, method_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_finetune.model.anatomy import Anatomy
    from hf_finetune.recipes.schema import Lora, Peft

_ADAPTER_PARAMETER = re.compile(r"\.(lora|ia3|vera|hada|lokr|oft|boft)_[A-Za-z0-9_]+\..*$")


def add_adapters(model: PreTrainedModel, anatomy: Anatomy, settings: Lora | Peft, seed: int) -> tuple[Any, set[str]]:
    """Adapts the blocks of a model and leaves its head to learn whole.

    Without `targets`, every linear layer and every dense convolution of the blocks is adapted that the method can:
    attention and mlp of a transformer ("QLoRA-style" all-linear; Dettmers et al. 2023, arXiv:2305.14314, section 4),
    pointwise and full convolutions of a convolutional net. Depthwise and other grouped convolutions are not: they are
    small, and peft cannot merge them. XLNet keeps its attention weights outside of layers; there the feed-forward
    layers are adapted.

    Args:
        model: changed in place.
        anatomy: of that model.
        settings: the method with its rank, targets and options.
        seed: of what the method draws at random; whatever it draws, the model's output does not change.

    Returns:
        The peft model, and the names in `model` of the layers that were adapted.

    Raises:
        UserError: the targets match nothing, the method cannot adapt this model, the model has adapters already, or it
            is a MobileNet with TensorFlow's padding and the adapters are not to be merged.
    """
    from peft import get_peft_model

    method = method_of(settings)
    if _has_adapters(model):
        raise UserError(
            f"{method.said}: this checkpoint carries adapters already. Merge them first (a run with "
            "strategy.merge=true saves a merged "
            "model), or take the checkpoint that they were made for."
        )
    targets = choose_targets(model, anatomy, settings.targets, method)
    pads = any(getattr(getattr(module, "config", None), "tf_padding", False) for module in model.modules())
    if pads and not settings.merge:
        raise UserError(
            f"{method.said}: this MobileNet computes TensorFlow's padding (tf_padding) from its convolutions' "
            "strides, which "
            "peft's adapters hide, so saved adapters could not be loaded again. Set strategy.merge=true."
        )
    text = model.main_input_name != "pixel_values"
    config = configuration(settings, model, targets, head_modules(model, anatomy), seed, text=text)
    try:
        with quiet(), seeded(seed):
            adapted = get_peft_model(model, config)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"{method.said}: peft cannot adapt {type(model).__name__} so: {error}") from error
    if getattr(config, "init_lora_weights", None) == "pissa":
        remember_start(adapted)
    if pads:
        _show_geometry(adapted.get_base_model(), targets)
    return adapted, set(targets)


def _show_geometry(model: nn.Module, targets: Collection[str]) -> None:
    """Lets adapted convolutions tell their stride, kernel and dilation, as `tf_padding` asks them."""
    for name in targets:
        layer: Any = model.get_submodule(name)
        base = layer.get_base_layer()
        if isinstance(base, nn.Conv2d):
            layer.stride, layer.kernel_size, layer.dilation = base.stride, base.kernel_size, base.dilation


def choose_targets(
    model: nn.Module, anatomy: Anatomy, endings: Collection[str] | None, method: Method = LORA
) -> list[str]:
    """Names of the layers to adapt.

    Args:
        model: the model.
        anatomy: its parts.
        endings: last pieces of module names, such as "q_proj" or "attention.output.dense"; None for the default.
            Layers of the stem are adapted only where an ending names them; the head never is, it learns whole.
        method: what adapts them.

    Raises:
        UserError: the blocks have no layer that the method adapts, or an ending matches none.
    """
    modules = dict(model.named_modules())
    in_blocks = [name for block in anatomy.blocks for name in block.modules if method.fits(modules[name])]
    if endings is None:
        if not in_blocks:
            raise UserError(
                f"{method.said} adapts {method.layers_in_words}, and the blocks of {type(model).__name__} have none"
                + (
                    ". Use strategy=full, or another checkpoint."
                    if "conv2d" in method.layers
                    else "; use strategy=lora (or variant=dora), or strategy=peft with method ia3, loha, lokr or boft, "
                    "which adapt convolutions."
                )
            )
        return in_blocks
    everywhere = [name for name in anatomy.stem.modules if method.fits(modules[name])] + in_blocks
    unmatched = [ending for ending in endings if not any(ends_with(name, ending) for name in everywhere)]
    if unmatched:
        candidates = sorted({re.sub(r"^(.*\.)?(?=[^.]*[A-Za-z])", "", name) for name in everywhere})
        raise UserError(
            f"strategy.targets={', '.join(unmatched)} matches no layer of {type(model).__name__} that {method.said} "
            f"can adapt ({method.layers_in_words}, outside the head). There are: {', '.join(candidates) or 'none'}."
        )
    return [name for name in everywhere if any(ends_with(name, ending) for ending in endings)]


def head_modules(model: nn.Module, anatomy: Anatomy) -> list[str]:
    """The largest modules that lie in the head alone and hold parameters, by name.

    A Sequential is taken apart: peft cannot merge one that it saves whole.
    """
    modules = dict(model.named_modules())
    inside = [name for name in anatomy.head.modules if next(modules[name].parameters(), None) is not None]
    whole = [name for name in inside if not isinstance(modules[name], nn.Sequential)]
    return [name for name in whole if not any(name.startswith(f"{other}.") for other in whole)]


def plain_name(name: str, known: Collection[str]) -> str:
    """The name in the base model of a parameter of a peft model; for an adapter's, the weight that it adapts.

    Raises:
        KeyError: the name belongs to no parameter of the base model.
    """
    if name in known:
        return name
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = head_name(name)
    name = _ADAPTER_PARAMETER.sub(".weight", name)
    if name not in known:
        raise KeyError(name)
    return name


def head_name(name: str) -> str:
    """The name in the base model of a module or parameter of the head, of which peft keeps the original and a copy."""
    return re.sub(r"\.(modules_to_save\.[^.]+|original_module)(?=\.|$)", "", name)


def b_matrix(name: str) -> bool:
    """Whether this parameter of a peft model is a LoRA's second matrix, the one that starts at zero."""
    return ".lora_B." in name


def is_scale(name: str) -> bool:
    """Whether this parameter of a peft model multiplies outputs and starts at 1, or at a norm: no weight to decay."""
    return any(f".{kind}." in name for kind in ("lora_magnitude_vector", "ia3_l", "boft_s"))


def _has_adapters(model: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, BaseTunerLayer) for module in model.modules())
