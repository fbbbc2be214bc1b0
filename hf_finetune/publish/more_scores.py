"""What further runs tell of a finished one: a section more in its metrics.json, in its card and on its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_finetune.console import warn
from hf_finetune.files import write_whole
from hf_finetune.publish.card_again import rewrite_card
from hf_finetune.publish.report import PAGE, write_report
from hf_finetune.publish.save import without_nan

_CARD = "README.md"


def write_section(folder: Path, name: str, section: dict[str, Any]) -> None:
    """Write a section into metrics.json, and draw card and page again; nothing where all that has been done before.

    Call it on one process.

    Args:
        folder: of a finished run.
        name: of the section, such as `seeds`.
        section: what JSON can hold; NaN becomes null.
    """
    file = folder / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    new = json.loads(json.dumps(without_nan(section)))
    if metrics.get(name) != new:
        text = json.dumps({**metrics, name: new}, indent=2, allow_nan=False, ensure_ascii=False)
        write_whole(file, text + "\n")
    elif all(_is_newer(folder / drawn, file) for drawn in (PAGE, _CARD)):
        return
    _spared(PAGE, lambda: write_report([folder], folder / PAGE))
    _spared(_CARD, lambda: rewrite_card(folder))


def _is_newer(drawn: Path, than: Path) -> bool:
    return drawn.is_file() and drawn.stat().st_mtime_ns >= than.stat().st_mtime_ns


def _spared(what: str, draw: Callable[[], None]) -> None:
    try:
        draw()
    except Exception as fault:  # the scores are written, and no run is lost for a page
        warn(f"{what} was not made again: {type(fault).__name__}: {fault}. The run itself is complete.")
