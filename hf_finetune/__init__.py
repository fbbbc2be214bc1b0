"""hf_finetune: fine-tuning of Hugging Face checkpoints, image and text, where every technique is one line of a recipe.

>>> from hf_finetune import finetune, load_recipe
>>> run = finetune(load_recipe("digits", "strategy=lora"))  # doctest: +SKIP
>>> run.metrics["test"]["accuracy"]  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_finetune.finetune import finetune
    from hf_finetune.recipes import Recipe, list_recipes, load_recipe
    from hf_finetune.runs import Run

__version__ = "0.1.0"
__all__ = ["Recipe", "Run", "finetune", "list_recipes", "load_recipe"]

_HOMES = {
    "Recipe": "hf_finetune.recipes",
    "Run": "hf_finetune.runs",
    "finetune": "hf_finetune.finetune",
    "list_recipes": "hf_finetune.recipes",
    "load_recipe": "hf_finetune.recipes",
}


def __getattr__(name: str) -> Any:
    # Names are imported when they are used: `import hf_finetune` takes no torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_finetune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package itself: `hf_finetune.finetune` stays the function when the module of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "finetune" and isinstance(value, ModuleType):
            value = value.finetune
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
