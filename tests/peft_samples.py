"""Every way to adapt a model, the families it is tried on, and tiny models on which adapters have an effect."""

from __future__ import annotations

from typing import Any

import torch
from model_samples import batch, image_size, tiny
from strategy_samples import loaded_from, recipe_for

from hf_finetune.strategy import Applied, apply_strategy

VARIANTS: dict[str, dict[str, Any]] = {
    name: {"kind": "lora", "variant": name, "r": 2} for name in ("lora", "dora", "rslora", "pissa")
}
METHODS: dict[str, dict[str, Any]] = {
    "ia3": {"kind": "peft", "method": "ia3"},
    "vera": {"kind": "peft", "method": "vera", "options": {"r": 8}, "merge": True},
    "loha": {"kind": "peft", "method": "loha", "options": {"r": 2}},
    "lokr": {"kind": "peft", "method": "lokr", "options": {"r": 2}},
    "oft": {"kind": "peft", "method": "oft", "options": {"oft_block_size": 4}},
    "boft": {"kind": "peft", "method": "boft", "options": {"boft_block_size": 4}},
}
WAYS = VARIANTS | METHODS
CONVOLUTIONAL = ("resnet", "timm_resnet")
LINEAR_ONLY = ("pissa", "vera", "oft")
TRIED = ("vit", "timm_vit", "bert", *CONVOLUTIONAL)
WORKS = [(way, family) for way in WAYS for family in TRIED if not (way in LINEAR_ONLY and family in CONVOLUTIONAL)]


def live(family: str) -> Any:
    """`tiny(family)`; a timm ResNet with statistics that fit its weights, or all its features would be near zero."""
    model = tiny(family)
    if family != "timm_resnet":
        return model
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for norm in norms:
            norm.momentum = None  # the mean over all batches
            norm.reset_running_stats()
            norm.weight.fill_(1.0)  # timm starts the last of each block at zero
        model(pixel_values=torch.randn(16, 3, image_size(family), image_size(family)))
        for norm in norms:
            norm.momentum = 0.1
    return model


def adapt(family: str, settings: dict[str, Any], model: Any = None, seed: int = 0) -> Applied:
    """A strategy applied to `live(family)`, or to a model of that family."""
    recipe = recipe_for(family, "tiny", settings, seed=seed)
    return apply_strategy(loaded_from(live(family) if model is None else model), recipe)


def logits(model: Any, family: str) -> torch.Tensor:
    """Logits (4, 3) of `batch(family)` in eval mode."""
    with torch.no_grad():
        return model.eval()(**batch(family)).logits
