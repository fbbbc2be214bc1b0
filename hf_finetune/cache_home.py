"""Where runs keep what later runs can use: features, measured formats, and, while they last, pixels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """The folder HF_FINETUNE_CACHE, or one in the Hugging Face home."""
    chosen = os.environ.get("HF_FINETUNE_CACHE")
    if chosen:
        return Path(chosen)
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_finetune"
