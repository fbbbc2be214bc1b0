"""The licence of a fine-tuned model: its base model's, where that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from hf_finetune.publish.local_places import is_hub_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hf_finetune.recipes import Recipe

_KEYS = ("license", "license_name", "license_link")


def licence_of(api: HfApi, recipe: Recipe) -> dict[str, str] | None:
    """The base model's licence, as its card on the Hub says; None where it cannot be found out.

    Args:
        api: of the Hub.
        recipe: the public one: in it a folder that looked like a name of the Hub no longer does.
    """
    from huggingface_hub.errors import HfHubHTTPError

    model = recipe.model
    if not is_hub_id(model.checkpoint):
        return None
    try:
        card = api.model_info(model.checkpoint, revision=model.revision).card_data
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            return None
        raise
    found = {key: value for key in _KEYS if card is not None and isinstance(value := card.get(key), str)}
    return found or None


def with_licence(card: str, licence: dict[str, str] | None) -> str:
    """A model card whose metadata begins with the licence."""
    lines = yaml.safe_dump(licence, sort_keys=False, allow_unicode=True) if licence else ""
    return card.replace("---\n", f"---\n{lines}", 1)
