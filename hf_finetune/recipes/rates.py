"""The learning rate a strategy takes where a recipe gives none.

A rate tuned for one strategy is wrong for another: what is new (a head, adapters, random weights) takes a large one,
what is pretrained a small one, and a text Transformer a smaller one than an image model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

# strategy kind -> (image, text), for AdamW with a batch of about 32.
_RATES = {
    "full": (1e-4, 3e-5),  # BERT's own advice for text is 2e-5 to 5e-5 (arXiv:1810.04805); a ViT bears more
    "freeze": (2e-4, 5e-5),  # fewer layers to disturb than with full
    "head": (1e-3, 1e-3),  # a new layer on fixed features: nothing to forget
    "lora": (5e-4, 5e-4),  # adapters start at zero: about ten times full (arXiv:2106.09685, tables 9 to 11)
    "scratch": (1e-3, 1e-4),  # random weights; a text Transformer diverges above this without a long warm-up
}


def default_learning_rate(recipe: Recipe) -> float:
    """The learning rate for the recipe's strategy and task.

    It is the rate of the pretrained layers where they learn (the head's is `head_lr_multiplier` times that), otherwise
    of what does learn.
    """
    image, text = _RATES[recipe.strategy.kind]
    return image if recipe.task == "image-classification" else text
