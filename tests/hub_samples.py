"""What the Hub's client has on disk, laid out as huggingface_hub does: tests are offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_finetune.recipes import Recipe


def download(repo: str, recipe: Recipe, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on `cache` is the Hub's, with this published recipe in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    commit = "a" * 40
    for name, text in (("refs/main", commit), (f"snapshots/{commit}/recipe.yaml", recipe.to_yaml())):
        file = cache / f"models--{repo.replace('/', '--')}" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
