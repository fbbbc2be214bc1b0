"""README.md of a finished run again, when its metrics.json has come to tell more."""

from __future__ import annotations

import json
from pathlib import Path

from hf_finetune.files import write_whole
from hf_finetune.model.adapter_files import ADAPTER_FILES
from hf_finetune.publish.about import labels_of, read_about
from hf_finetune.publish.card import model_card
from hf_finetune.publish.card_pictures import FOLDER
from hf_finetune.publish.local_places import local_places, public_recipe
from hf_finetune.publish.own_part import merge
from hf_finetune.recipes import load_recipe


def rewrite_card(folder: Path) -> None:
    """Write the card anew from the run's files; what a person wrote above or below stays.

    Args:
        folder: of a finished run.
    """
    recipe, about = load_recipe(str(folder / "recipe.yaml")), read_about(folder)
    local = tuple(about["local"]) if "local" in about else local_places(recipe)
    card = model_card(
        public_recipe(recipe, folder.resolve().name, local),
        labels_of(about, folder),
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        about.get("strategy_table", ""),
        own_code=any(folder.glob("*.py")),
        about=about,
        pictures=[path.name for path in (folder / FOLDER).glob("*.png")],
        adapter=(folder / ADAPTER_FILES[0]).exists(),
    )
    file = folder / "README.md"
    old = file.read_text(encoding="utf-8") if file.is_file() else ""
    write_whole(file, merge(card, old).text)
