"""report.html as strangers may see it: drawn anew from the recipe for others."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_finetune.console import warn
from hf_finetune.publish.about import ABOUT
from hf_finetune.publish.report_data import NAME
from hf_finetune.recipes import Recipe

_ANSWERS = "predictions.parquet"


def public_page(folder: Path, name: str, recipe: Recipe, clean: Callable[[str], str]) -> bytes | None:
    """The page of a run, of which the page in the run's folder tells too much; None where it cannot be drawn.

    Args:
        folder: of a finished run; nothing in it is changed.
        name: of the repository, without its owner, in place of the folder's.
        recipe: the public one.
        clean: a text without the places of this machine.
    """
    from hf_finetune.publish.report import PAGE, write_report

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / name
        copy.mkdir()
        (copy / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        for file in (NAME, ABOUT, "metrics.json"):
            if (folder / file).is_file():
                value = json.loads((folder / file).read_text(encoding="utf-8"))
                (copy / file).write_text(json.dumps(_each(value, clean), ensure_ascii=False), encoding="utf-8")
        if (folder / _ANSWERS).is_file():
            shutil.copyfile(folder / _ANSWERS, copy / _ANSWERS)
        try:
            write_report([copy], copy / PAGE)
            return clean((copy / PAGE).read_text(encoding="utf-8")).encode()
        except Exception as fault:  # whatever it is: what is pushed is whole without the page
            warn(f"{PAGE} could not be drawn for others and is not pushed: {type(fault).__name__}: {fault}")
            return None


def _each(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return value if value.startswith("data:image/") else clean(value)
    if isinstance(value, dict):
        return {key: _each(inner, clean) for key, inner in value.items()}
    return [_each(inner, clean) for inner in value] if isinstance(value, list) else value
