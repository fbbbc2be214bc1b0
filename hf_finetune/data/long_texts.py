"""Texts far longer than a model reads, cut before they are tokenized. A Space gets a copy of this file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_LONG = 1 << 17  # characters of a text that is cut before it is tokenized
_MARGIN = 8  # tokens more than are kept, since those at the cut may differ; as many again where it is within a word
_SPACE = re.compile(r"\s")


def shortener(tokenizer: Any, limit: int) -> Callable[[str], str]:
    """Takes from a very long text what gives the first `limit` tokens, cut at a space; other texts stay as they are.

    A text of ten million characters would take gigabytes to become the 512 tokens that are kept.
    """

    def shorten(text: str) -> str:
        kept = max(_LONG, 64 * limit)
        while kept < len(text) and tokenizer.truncation_side == "right":
            space = _SPACE.search(text, kept, 2 * kept)
            end, wanted = (kept, 2 * limit) if space is None else (space.start(), limit)
            if len(tokenizer(text[:end])["input_ids"]) > wanted + _MARGIN:
                return text[:end]
            kept *= 4
        return text

    return shorten
