"""Adapters of peft taken off again or merged, and written so that the base checkpoint fits beside them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"  # peft's name for the only adapter of a model
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_START_A, _START_B = "start_A", "start_B"


def has_adapters(model: nn.Module) -> bool:
    """Whether layers of peft stand in it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def merged(model: Any) -> PreTrainedModel:
    """A plain model with the adapters in its weights, and the trained head.

    Args:
        model: a peft model, or one of transformers with adapters; it is left as it is.
    """
    return _unwrapped(model, merge=True)


def without_adapters(model: Any) -> PreTrainedModel:
    """The base model of a peft model: its unchanged backbone under the names it had, with the trained head.

    Args:
        model: a peft model; it is left as it is.
    """
    return _unwrapped(model, merge=False)


def _unwrapped(model: Any, *, merge: bool) -> PreTrainedModel:
    """A copy in which the layers stand again where peft put its own.

    Not by peft's `unload`: for most methods it takes every module that is saved whole for a layer with a `weight`, and
    fails on heads such as RoBERTa's or an mlp.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    inner = copy.deepcopy(model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    for name, module in list(inner.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            inner.set_submodule(name, module.modules_to_save[ADAPTER])
        elif isinstance(module, BaseTunerLayer):
            if merge:
                module.merge()
            elif hasattr(module, _START_A):
                _give_back(module)
            inner.set_submodule(name, module.get_base_layer())
    if hasattr(inner, "peft_config"):
        del inner.peft_config
    if hasattr(inner, "_hf_peft_config_loaded"):  # transformers', of adapters that it loaded itself
        inner._hf_peft_config_loaded = False
        inner._weight_conversions = []  # of the adapter's file: saving would name every weight as peft does
    return inner  # type: ignore[no-any-return]


# --- PiSSA ---------------------------------------------------------------------------------------------------------
# It takes the principal part of a weight out of the base and into the adapter: W = R + s B0 A0, and A, B learn from
# there. Beside the base as it was, the trained model is the adapter s (B A - B0 A0): a LoRA of twice the rank (Meng et
# al. 2024, arXiv:2404.02948, appendix C). So the beginning is kept, as buffers, which checkpoints save too.


def remember_start(model: nn.Module) -> None:
    """Keeps the adapters' first matrices beside them, where they took something out of the base."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A:
            for name, part in ((_START_A, module.lora_A), (_START_B, module.lora_B)):
                module.register_buffer(name, part[ADAPTER].weight.detach().clone())  # type: ignore[attr-defined]


def changed_at_start(model: nn.Module) -> set[str]:
    """Names of frozen base weights that are not those of the checkpoint, because the adapters took a part of them."""
    return {f"{name}.base_layer.weight" for name, module in model.named_modules() if hasattr(module, _START_A)}


@torch.no_grad()
def _give_back(module: Any) -> None:
    taken = module.scaling[ADAPTER] * getattr(module, _START_B) @ getattr(module, _START_A)
    weight = module.get_base_layer().weight
    weight += taken.T if getattr(module, "fan_in_fan_out", False) else taken


def _as_lora(model: Any) -> dict[str, torch.Tensor]:
    """All weights, the adapters' with the part that they began with subtracted: [A, A0] and [B, -B0]."""
    state = dict(model.state_dict())
    for name in [name.removesuffix(f".{_START_A}") for name in state if name.endswith(f".{_START_A}")]:
        down, up = f"{name}.lora_A.{ADAPTER}.weight", f"{name}.lora_B.{ADAPTER}.weight"
        state[down] = torch.cat([state[down], state[f"{name}.{_START_A}"]], dim=0)
        state[up] = torch.cat([state[up], -state[f"{name}.{_START_B}"]], dim=1)
    return state


def save_adapter(model: Any, folder: str, base: str | None, revision: str | None) -> None:
    """Writes the adapter's two files.

    Args:
        model: a peft model.
        folder: an existing folder.
        base: what the adapter names as its base model: a Hub id. Without one, the folder itself by its relative name.
        revision: the commit of that base model.
    """
    config = model.peft_config[ADAPTER]
    changes: dict[str, Any] = {"base_model_name_or_path": base or ".", "revision": revision if base else None}
    options: dict[str, Any] = {}
    if changed_at_start(model):
        options["state_dict"] = _as_lora(model)
        changes |= {"r": 2 * config.r, "lora_alpha": 2 * config.lora_alpha, "init_lora_weights": True}
    before = {name: getattr(config, name) for name in changes}
    try:
        vars(config).update(changes)
        model.save_pretrained(folder, save_embedding_layers=False, **options)
    finally:
        vars(config).update(before)
    _name_magnitudes(Path(folder, ADAPTER_FILES[1]))
    Path(folder, "README.md").unlink(missing_ok=True)  # peft's empty model card; the run writes its own


def _name_magnitudes(file: Path) -> None:
    """Gives DoRA's magnitudes the full names of parameters, which both libraries read.

    peft leaves out their last piece; transformers 5.23 then finds no magnitudes in the file, and goes on with those of
    the untrained weights.
    """
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    short = [name for name in tensors if name.endswith(".lora_magnitude_vector")]
    if short:
        renamed = {f"{name}.weight" if name in short else name: tensor for name, tensor in tensors.items()}
        save_file(renamed, file, metadata={"format": "pt"})
