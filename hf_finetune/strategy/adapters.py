"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) by peft, on transformers and convolutional nets alike."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.heads import seeded
from hf_finetune.model.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_finetune.model.anatomy import Anatomy
    from hf_finetune.recipes.schema import Lora


def add_lora(model: PreTrainedModel, anatomy: Anatomy, settings: Lora, seed: int) -> tuple[Any, set[str]]:
    """Adapts the blocks of a model and leaves its head to learn whole.

    Without `targets`, every linear layer and every dense convolution of the blocks is adapted: attention and mlp of a
    transformer ("QLoRA-style" all-linear; Dettmers et al. 2023, arXiv:2305.14314, section 4), pointwise and full
    convolutions of a convolutional net. Depthwise and other grouped convolutions are not: they are small, and peft
    cannot merge them. XLNet keeps its attention weights outside of layers; there the feed-forward layers are adapted.

    Args:
        model: changed in place.
        anatomy: of that model.
        settings: rank, alpha, dropout, targets.
        seed: of the adapters' first matrices; the second are zero, so the model's output does not change.

    Returns:
        The peft model, and the names in `model` of the layers that were adapted.

    Raises:
        UserError: the targets match nothing, the model has adapters already, or it is a MobileNet with TensorFlow's
            padding and the adapters are not to be merged.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    if _has_adapters(model):
        raise UserError(
            "strategy=lora: this checkpoint carries adapters already. Merge them first (a run with "
            "strategy.merge=true saves a merged "
            "model), or take the checkpoint that they were made for."
        )
    targets = choose_targets(model, anatomy, settings.targets)
    pads = any(getattr(getattr(module, "config", None), "tf_padding", False) for module in model.modules())
    if pads and not settings.merge:
        raise UserError(
            "strategy=lora: this MobileNet computes TensorFlow's padding (tf_padding) from its convolutions' "
            "strides, which "
            "peft's adapters hide, so saved adapters could not be loaded again. Set strategy.merge=true."
        )
    conv1d = type(model.get_submodule(targets[0])).__name__ == "Conv1D"
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=targets,
        modules_to_save=head_modules(model, anatomy),
        # Only text has a task type in peft; with it, peft's auto class for sequence classification loads the adapter.
        task_type=None if model.main_input_name == "pixel_values" else TaskType.SEQ_CLS,
        fan_in_fan_out=conv1d,
    )
    with quiet(), seeded(seed):
        adapted = get_peft_model(model, config)
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


def choose_targets(model: nn.Module, anatomy: Anatomy, endings: Collection[str] | None) -> list[str]:
    """Names of the layers to adapt.

    Args:
        model: the model.
        anatomy: its parts.
        endings: last pieces of module names, such as "q_proj" or "attention.output.dense"; None for the default.
            Layers of the stem are adapted only where an ending names them; the head never is, it learns whole.

    Raises:
        UserError: an ending matches no layer that can be adapted.
    """
    modules = dict(model.named_modules())
    in_blocks = [name for block in anatomy.blocks for name in block.modules if _adaptable(modules[name])]
    if endings is None:
        if not in_blocks:
            raise UserError(
                f"strategy=lora: {type(model).__name__} has no linear layer or dense convolution in its blocks."
            )
        return in_blocks
    everywhere = [name for name in anatomy.stem.modules if _adaptable(modules[name])] + in_blocks
    unmatched = [ending for ending in endings if not any(_ends_with(name, ending) for name in everywhere)]
    if unmatched:
        candidates = sorted({re.sub(r"^(.*\.)?(?=[^.]*[A-Za-z])", "", name) for name in everywhere})
        raise UserError(
            f"strategy.targets={', '.join(unmatched)} matches no layer of {type(model).__name__} that can be adapted "
            "(linear layers "
            f"and convolutions without groups, outside the head). There are: {', '.join(candidates)}."
        )
    return [name for name in everywhere if any(_ends_with(name, ending) for ending in endings)]


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
    name = re.sub(r"\.(modules_to_save\.[^.]+|original_module)\.", ".", name)
    name = re.sub(r"\.lora_[A-Za-z_]+\..*$", ".weight", name)
    if name not in known:
        raise KeyError(name)
    return name


def _adaptable(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
        return True
    return isinstance(module, nn.Conv2d) and module.groups == 1 and set(module.dilation) == {1}


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _has_adapters(model: nn.Module) -> bool:
    return any(".lora_" in name for name, _ in model.named_parameters())
