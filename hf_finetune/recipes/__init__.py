"""Recipes: typed, validated, written as YAML.

Every shipped one is importable: `from hf_finetune.recipes import cifar10`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.recipes.shipped import list_recipes, shipped_files

if TYPE_CHECKING:
    from hf_finetune.recipes.load import load_recipe
    from hf_finetune.recipes.schema import Recipe

__all__ = ["Recipe", "list_recipes", "load_recipe"]


def __getattr__(name: str) -> Any:
    # Looking at the list of recipes takes no schema; it is built when a recipe is.
    if name == "Recipe":
        from hf_finetune.recipes.schema import Recipe

        return Recipe
    if name == "load_recipe":
        from hf_finetune.recipes.load import load_recipe

        return load_recipe
    if not name.startswith("_") and name in shipped_files():
        from hf_finetune.recipes.load import load_recipe

        return load_recipe(name)
    raise AttributeError(f"module 'hf_finetune.recipes' has no attribute or recipe named {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *shipped_files()})
