"""A table whose first row was taken for the names of its columns: one row lost, and nobody the wiser."""

from __future__ import annotations

from datasets import ClassLabel, Dataset, Value

from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

_LOOKED_AT = 1000  # rows
_LONG = 40  # characters of a name


def refuse_missing_names(split: Dataset, content: str, label: str) -> None:
    """Stop where two columns that were found, not named, are called like a sample and its label.

    That is: the label column's name is one of its own values (or a number, and so are they), and the other's is a
    sentence or a file's.

    Args:
        split: of training.
        content: the column of texts or images that was found.
        label: the label column that was found.

    Raises:
        DataError: it is so.
    """
    if _is_content(content) and _is_own_value(split, label):
        raise DataError(
            f"The columns are called '{shown(content)}' and '{shown(label)}', like a row of the table: does the first "
            "line with the columns' names lack? Add one, such as text,label. If these are the names, say so with "
            "data.label=."
        )


def _is_content(name: str) -> bool:
    return len(name.split()) > 1 or len(name) > _LONG or "." in name.strip(".")


def _is_own_value(split: Dataset, name: str) -> bool:
    feature = split.features[name]
    if isinstance(feature, ClassLabel) or not isinstance(feature, Value):
        return False
    if feature.dtype in ("string", "large_string"):
        return name in split[: min(_LOOKED_AT, len(split))][name]
    return feature.dtype.startswith(("int", "uint", "float")) and _is_number(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
