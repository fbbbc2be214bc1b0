"""A label column of any kind, read and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import ClassLabel, Dataset, Value

from hf_finetune.console import say
from hf_finetune.data.columns import describe, is_list
from hf_finetune.data.label_checks import check_classes, refuse_fractions, refuse_sameness, refuse_texts
from hf_finetune.data.labels import LabelSpace, Target, class_name, is_missing
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType


@dataclass(frozen=True)
class RawLabels:
    """A label column as it stands in the source.

    Args:
        values: one plain value a row: None, a name, a number, or a list of them; classes of a ClassLabel by name.
        described: the column's type in words.
        natural: the problem type that follows from the column's type.
        declared: class names that the column's type fixes, in their order; None where the values decide.
        multi_hot_width: number of labels, where each row can be read as a 0 or 1 for every one of them; else 0.
    """

    values: list[Any]
    described: str
    natural: ProblemType
    declared: tuple[str, ...] | None = None
    multi_hot_width: int = 0


def read_labels(split: Dataset, column: str) -> RawLabels:
    """Read a label column. -1 of a ClassLabel, as in test splits without labels, is a missing label.

    Lists of one length above 1 that hold only 0 and 1 (or truth values) are multi-hot; whether a data set's lists are
    is decided once, on train. (Read as lists of label numbers, rows such as [0, 1] and [1, 0] would all say the same.)

    Raises:
        DataError: the column holds something else than classes, numbers or lists of them.
    """
    feature = split.features[column]
    values = split.select_columns([column]).with_format("arrow")[:][column].to_pylist() if len(split) else []
    described = describe(feature)
    if is_list(feature):
        return _read_lists(values, feature.feature, described, column)
    if isinstance(feature, ClassLabel):
        named = [_name_of(value, feature, column, row) for row, value in enumerate(values)]
        return RawLabels(named, described, "single_label_classification", tuple(feature.names))
    natural = _natural(feature, described, column, many=False)
    return RawLabels(without_spaces(values, column) if _is_text(feature) else values, described, natural)


def _name_of(value: int | None, feature: ClassLabel, column: str, row: int) -> str | None:
    if value is None or value < 0:
        return None
    if value >= len(feature.names):
        raise DataError(
            f"The label column '{column}' holds {value} (row {row}, counted from 0), and its type names "
            f"{len(feature.names)} classes, 0 to {len(feature.names) - 1}: the data set is damaged or badly converted."
        )
    return feature.names[value]


def _read_lists(values: list[Any], inner: Any, described: str, column: str) -> RawLabels:
    if isinstance(inner, ClassLabel):
        named = [
            None if items is None else [_name_of(item, inner, column, row) for item in items]
            for row, items in enumerate(values)
        ]
        return RawLabels(named, described, "multi_label_classification", tuple(inner.names))
    if width := _multi_hot_width(values):
        return RawLabels(values, described, "multi_label_classification", multi_hot_width=width)
    natural = _natural(inner, described, column, many=True)
    return RawLabels(without_spaces(values, column) if _is_text(inner) else values, described, natural)


def without_spaces(values: list[Any], column: str) -> list[Any]:
    """Labels without the white space around them: "yes " and "yes" are one class. Says how many had some."""
    changed = 0

    def bare(value: Any) -> Any:
        nonlocal changed
        if isinstance(value, list):
            return [bare(item) for item in value]
        if not isinstance(value, str) or value == (stripped := value.strip()):
            return value
        changed += bool(stripped)
        return stripped

    cleaned = [bare(value) for value in values]
    if changed:
        say(f"note: {changed:,} labels in the column '{column}' have white space around them and are read without it.")
    return cleaned


def _natural(feature: Any, described: str, column: str, many: bool) -> ProblemType:
    dtype = feature.dtype if isinstance(feature, Value) else ""
    if dtype.startswith(("float", "decimal", "double")):
        return "regression"
    # A column without any value ("null") has no type; that it is empty is said where its rows are counted.
    if _is_text(feature) or dtype in ("bool", "null") or dtype.startswith(("int", "uint")):
        return "multi_label_classification" if many else "single_label_classification"
    raise DataError(
        f"The label column '{column}' holds {described}: labels are classes (text, whole numbers, true or false), "
        "numbers, or lists of them."
    )


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _multi_hot_width(values: Sequence[Any]) -> int:
    """The common length of multi-hot lists; 0 if the lists are not multi-hot."""
    rows = [row for row in values if row is not None]
    if not rows or len({len(row) for row in rows}) != 1:
        return 0
    is_binary = all(is_missing(item) or item in (0, 1) for row in rows for item in row)
    return len(rows[0]) if is_binary and len(rows[0]) > 1 else 0


def find_label_space(raw: RawLabels, column: str, requested: ProblemType | None) -> LabelSpace:
    """The label space of the train split.

    ClassLabel, text, whole numbers and truth values are classes; floats are regression; lists are multi-label, and
    lists of floats several regression targets. `requested` (data.problem_type) wins where it can be meant. Classes
    keep the order of a ClassLabel; others are sorted, numbers as numbers.

    Raises:
        DataError: the column cannot hold such labels, or there are fewer than two classes.
    """
    problem_type = requested or raw.natural
    present = [value for value in raw.values if not is_missing(value)]
    if not present:
        raise DataError(f"The label column '{column}' is empty in all {len(raw.values):,} rows of the train split.")
    are_lists = isinstance(present[0], list)
    if problem_type == "regression":
        names = _target_names(column, present)
        refuse_sameness(present, column)
        return LabelSpace(problem_type, names)
    if are_lists != (problem_type == "multi_label_classification"):
        needs = "a list of classes in each row" if not are_lists else "one class in each row"
        raise DataError(
            f"data.problem_type={problem_type} needs {needs}; the label column '{column}' holds {raw.described}."
        )
    if are_lists:
        refuse_sameness([sorted(map(str, row)) for row in present] if not raw.multi_hot_width else present, column)
    if are_lists and raw.multi_hot_width:
        return LabelSpace(problem_type, tuple(map(str, range(raw.multi_hot_width))), multi_hot=True)
    flat = [item for row in present for item in row if not is_missing(item)] if are_lists else present
    refuse_fractions(flat, column, problem_type)
    names = raw.declared or tuple(sorted({class_name(item) for item in flat}, key=_numbers_first))
    refuse_texts(names, column)
    if not are_lists:
        check_classes(names, present, column)
    elif not names:
        raise DataError(f"All lists in the label column '{column}' are empty: there is no class to learn.")
    return LabelSpace(problem_type, names)


def _target_names(column: str, present: Sequence[Any]) -> tuple[str, ...]:
    """Names of the regression targets; text has to read as numbers."""
    for value in present:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and not is_missing(item):
                try:
                    float(item)
                except ValueError:
                    raise DataError(
                        f"data.problem_type=regression: the label column '{column}' holds '{shown(item)}', not a "
                        "number."
                    ) from None
    widths = sorted({len(value) for value in present if isinstance(value, list)})
    if not widths:
        return (column,)
    if len(widths) > 1 or widths[0] == 0:
        raise DataError(
            f"The lists of numbers in the label column '{column}' have {widths[0]} to {widths[-1]} values: "
            "regression needs the same number of targets in every row."
        )
    return (column,) if widths[0] == 1 else tuple(f"{column}_{index}" for index in range(widths[0]))


def _numbers_first(name: str) -> tuple[int, int, str]:
    """Sorts whole numbers as numbers, other names as text after them."""
    digits = name.removeprefix("-")
    return (0, int(name), name) if digits.isascii() and digits.isdigit() else (1, 0, name)


def encode_labels(raw: RawLabels, space: LabelSpace) -> tuple[list[Target | None], dict[int, str], dict[str, int]]:
    """Encode a split's labels.

    Returns:
        a target for each row (None where there is none), why rows have none, and how often each unknown class occurs.
    """
    targets: list[Target | None] = [None] * len(raw.values)
    reasons: dict[int, str] = {}
    unknown: dict[str, int] = {}
    for row, value in enumerate(raw.values):
        target, reason, stranger = _try_to_encode(value, space)
        targets[row] = target
        if reason:
            reasons[row] = reason
        if stranger is not None:
            unknown[stranger] = unknown.get(stranger, 0) + 1
    return targets, reasons, unknown


def _try_to_encode(value: Any, space: LabelSpace) -> tuple[Target | None, str | None, str | None]:
    """A target; or why there is none; or the name of an unknown class."""
    try:
        return space.encode(value), None, None
    except KeyError as error:
        return None, None, str(error.args[0])
    except (ValueError, TypeError) as error:
        return None, str(error), None
