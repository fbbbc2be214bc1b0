"""What cannot go together in the `hub:` section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


def faults_of_hub(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """A push that has nowhere to go."""
    if recipe.hub.push and recipe.hub.repo is None:
        yield "hub.repo", "is missing: hub.push=true needs hub.repo=owner/name"
