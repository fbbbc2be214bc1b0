"""Which strategy to take, measured before a run; and `strategy=auto`, which takes it. Heavy imports come late."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.recipes import Recipe

__all__ = ["settled"]


def settled(
    recipe: Recipe,
    data: Dataset | DatasetDict | None = None,
    resume: str = "auto",
    accept_changes: bool = False,
    trust_remote_code: bool = False,
) -> Recipe:
    """The recipe; with `strategy=auto` that of the strategy that is chosen for it, or was for the run in its folder.

    The arguments are those of `finetune`.

    Raises:
        UserError: as `finetune` and `advise`.
    """
    if recipe.strategy.kind != "auto":
        return recipe
    from hf_finetune.choice.auto import decide

    return decide(recipe, data, resume, accept_changes, trust_remote_code)
