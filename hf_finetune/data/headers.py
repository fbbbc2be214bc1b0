"""A table whose first row was taken for the names of its columns: one row lost, and nobody the wiser."""

from __future__ import annotations

from typing import Any

from datasets import ClassLabel, Dataset, Value

from hf_finetune.data.kinds import IMAGE_SUFFIXES
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_LOOKED_AT = 1000  # rows
_LONG = 40  # characters of a name


def refuse_missing_names(split: Dataset) -> None:
    """Stop where columns are called like a sample and its label, and not by words for them.

    That is: the name of one is among its own values (or a number, and so are they), and that of another is a sentence
    or a file's.

    Args:
        split: of training, whose columns of input and label are to be found.

    Raises:
        DataError: it is so.
    """
    contents = [name for name in split.column_names if _is_content(name)]
    features = split.features if contents else {}
    for name in features:
        if name not in contents and _is_own_value(split, name, features[name]):
            raise DataError(
                f"Columns are called '{shown(contents[0])}' and '{shown(name)}', like a row of the table: does the "
                "first line with the columns' names lack? Add one, such as text,label. If these are the names, say "
                "data.label=COLUMN."
            )


def _is_content(name: str) -> bool:
    return len(name.split()) > 2 or len(name) > _LONG or name.lower().endswith(IMAGE_SUFFIXES)


def _is_own_value(split: Dataset, name: str, feature: Any) -> bool:
    if isinstance(feature, ClassLabel) or not isinstance(feature, Value):
        return False
    if feature.dtype in ("string", "large_string"):
        return name in split.select_columns([name])[: min(_LOOKED_AT, len(split))][name]
    return feature.dtype.startswith(("int", "uint", "float")) and _is_number(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
