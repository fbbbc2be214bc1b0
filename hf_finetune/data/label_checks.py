"""What cannot be learnt from a label column, said before anything is read or trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.data.labels import class_name
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType

_LONGEST_NAME = 500  # characters of a class's name


def refuse_sameness(present: Sequence[Any], column: str) -> None:
    """Raise a DataError where all labels of the train split are equal: lists of them, or numbers."""
    if isinstance(present[0] if present else None, list) and not any(present):
        return  # of lists that are all empty it is said that there is no class
    if len(present) > 1 and all(value == present[0] for value in present):
        raise DataError(
            f"All rows of the train split have the same label, {shown(present[0])} (column '{column}'): there is "
            "nothing to learn. If another column is the label, say data.label=COLUMN."
        )


def refuse_texts(names: Sequence[str], column: str) -> None:
    """Raise a DataError where a class has the length of a text: another column is the label."""
    longest = max(names, key=len, default="")
    if len(longest) > _LONGEST_NAME:
        raise DataError(
            f"The label column '{column}' holds a text of {len(longest):,} characters ('{shown(longest)}'); names of "
            f"classes have at most {_LONGEST_NAME}. If another column is the label, say data.label=COLUMN."
        )


def refuse_fractions(values: Iterable[Any], column: str, problem_type: ProblemType) -> None:
    """Raise a DataError where a class is a number with a fraction."""
    for value in values:
        if isinstance(value, float) and not value.is_integer():
            raise DataError(
                f"data.problem_type={problem_type}: the label column '{column}' holds {value}, which is not a class. "
                "Leave data.problem_type out, or say regression."
            )


def check_classes(names: Sequence[str], present: Sequence[Any], column: str) -> None:
    """Raise a DataError where there is one class alone, or nearly as many as rows.

    Args:
        names: of the classes.
        present: the labels of the train split that are not missing.
        column: they stand in.
    """
    seen = {class_name(value) for value in present}
    if len(seen) < 2:
        (only,) = seen
        raise DataError(
            f"All rows of the train split have the label '{shown(only)}' (column '{column}'): there is nothing to "
            "tell apart. Two classes or more are needed."
        )
    if len(names) > 50 and 2 * len(seen) > len(present):
        raise DataError(
            f"The label column '{column}' has {len(seen):,} different values in {len(present):,} rows. If they are "
            "numbers to predict, say data.problem_type=regression; if it is not the label, say data.label=COLUMN."
        )
