"""One rank speaks: the only place that prints to the user."""

from __future__ import annotations

import os
import re
import sys

# What a terminal obeys rather than shows (ESC and its relatives, a lone carriage return), what turns the order of
# letters around, and half characters, which no encoding takes.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LIKE_A_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # letters of a secret that is looked for: a shorter one is part of ordinary words


def is_main_process() -> bool:
    """Whether this is rank 0, as the launcher's environment says (known before torch is imported)."""
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str = "") -> None:
    """Print a line for the user on rank 0, flushed, so that it keeps its place among progress bars."""
    if is_main_process():
        print(inert(text), flush=True)


def warn(text: str) -> None:
    """Print a warning on rank 0 to standard error."""
    if is_main_process():
        print(f"warning: {inert(text)}", file=sys.stderr, flush=True)


def inert(text: str) -> str:
    """Text as a terminal or a log may have it.

    Names come from strangers' files: what a terminal would obey is written out (`\\x1b`), and so is half a character.
    Tokens of the Hub, the one in the environment and whatever looks like one, become `hf_***`.
    """
    for name in _TOKENS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "hf_***")
    text = _LIKE_A_TOKEN.sub("hf_***", text)
    return _OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)
