"""Which columns hold the image or text, and the label."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Array2D, Array3D, ClassLabel, Dataset, Features, Image, Json, LargeList, List, Value

from hf_finetune.data.bands import holds_arrays
from hf_finetune.data.headers import refuse_missing_names
from hf_finetune.data.kinds import IMAGE_SUFFIXES
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data

_ID_NAMES = {"id", "ids", "idx", "index", "guid", "uid", "uuid", "key", "row", "unnamed: 0", "__index_level_0__", ""}
_LISTED = 50  # columns that an error names
LABEL_NAMES = ("label", "labels")


@dataclass(frozen=True)
class Columns:
    """Names of the columns in the source: an image, or a text and perhaps its pair; the label."""

    label: str
    image: str | None = None
    text: str | None = None
    text_pair: str | None = None


def find_columns(train: Dataset, task: str, data: Data) -> Columns:
    """Take the columns the recipe names and find the others from the features of the train split.

    A column called `label` or `labels` is the label; else the only column of classes; else the only column that is
    left. An image or text column is found only if there is exactly one.

    Raises:
        DataError: a named column is missing or cannot hold what it should, or more than one could be meant.
    """
    for key in ("image", "text", "text_pair", "label"):
        name = getattr(data, key)
        if name is not None and name not in train.column_names:
            raise DataError(
                f"data.{key}={name}: there is no such column.{nearest(name, train.column_names)}\n{_table(train)}"
            )
    if data.image is None and data.text is None and data.label is None:
        refuse_missing_names(train)
    if task == "image-classification":
        image = data.image or _only(train, "image", _image_columns(train), exclude=(data.label, data.group))
        if not _can_hold_image(train, image):
            raise DataError(
                f"data.image={image}: the column does not hold images, paths of images or arrays.\n{_table(train)}"
            )
        return Columns(image=image, label=data.label or _find_label(train, exclude=(image, data.group)))
    others = (data.text_pair, data.group)
    label = data.label or _find_label(train, exclude=(data.text, *others), quiet=data.text is None)
    taken = (label, *others)
    text = data.text or _only(train, "text", [name for name in _text_columns(train) if not is_id(name)], exclude=taken)
    for key, name in (("text", text), ("text_pair", data.text_pair)):
        if name is not None and not is_text(train.features[name]):
            raise DataError(f"data.{key}={name}: the column does not hold text.\n{_table(train)}")
    label = label or _find_label(train, exclude=(text, *others))
    return Columns(text=text, text_pair=data.text_pair, label=label)


def is_id(name: str) -> bool:
    """Whether a column's name says that it only numbers the rows."""
    return name.lower() in _ID_NAMES or name.lower().endswith(("_id", "_idx"))


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'X'?`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def describe(feature: Any) -> str:
    """A column's type in words."""
    if isinstance(feature, Image):
        return "image"
    if isinstance(feature, ClassLabel):
        return f"{feature.num_classes} classes"
    if is_list(feature):
        return f"list of {describe(feature.feature)}"
    if isinstance(feature, Value):
        words = {"string": "text", "large_string": "text", "bool": "true or false", "binary": "bytes", "null": "empty"}
        return words.get(feature.dtype, feature.dtype)
    if isinstance(feature, (Array2D, Array3D)):
        return f"array {feature.shape}"
    if isinstance(feature, Json):
        return "values of different types"
    return type(feature).__name__ if not isinstance(feature, dict) else "record"


def is_list(feature: Any) -> bool:
    """Whether the feature holds a list in each row."""
    return isinstance(feature, (List, LargeList))


def _table(split: Dataset) -> str:
    columns = [f"  {shown(name)}: {describe(feature)}" for name, feature in list(split.features.items())[:_LISTED]]
    if len(split.features) > _LISTED:
        columns.append(f"  ... and {len(split.features) - _LISTED:,} more")
    return "The columns are:\n" + "\n".join(columns)


def _only(split: Dataset, role: str, names: Sequence[str], exclude: Sequence[str | None]) -> str:
    names = [name for name in names if name not in exclude]
    if len(names) == 1:
        return names[0]
    found = (
        f"{len(names)} columns could be ({', '.join(map(shown, names[:_LISTED]))})"
        if names
        else "no column looks like one"
    )
    pair = " and, for pairs, data.text_pair=COLUMN" if role == "text" and len(names) > 1 else ""
    raise DataError(
        f"Which column is the {role}? {found}. Say data.{role}=COLUMN{pair}.\n{_table(split)}".replace("? n", "? N")
    )


def _find_label(split: Dataset, exclude: Sequence[str | None], quiet: bool = False) -> str:
    """The label column; with `quiet`, '' where the text has to be found first."""
    names = [name for name in split.column_names if name not in exclude]
    exact = [name for name in names if name in LABEL_NAMES]
    features = split.features  # a copy of all at every call
    classes = [name for name in names if isinstance(features[name], ClassLabel)]
    for candidates in (exact, classes):
        if len(candidates) == 1:
            return candidates[0]
    if quiet and not exact and not classes:
        return ""
    left = exact or classes or [name for name in names if not is_id(name) and _can_hold_label(split, name, features)]
    return _only(split, "label", left, exclude=())


def _can_hold_label(split: Dataset, name: str, features: Features) -> bool:
    feature = features[name]
    if is_list(feature):
        feature = feature.feature
    return (
        isinstance(feature, (ClassLabel, Value))
        and feature.dtype not in ("binary", "large_binary")
        and not holds_paths(split, name, features)
    )


def is_text(feature: Any) -> bool:
    """Whether the feature holds a text in each row."""
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _text_columns(split: Dataset) -> list[str]:
    return [name for name, feature in split.features.items() if is_text(feature)]


def _image_columns(split: Dataset) -> list[str]:
    features = split.features
    typed = [name for name, feature in features.items() if isinstance(feature, (Image, Array3D))]
    return typed or [name for name in features if holds_paths(split, name, features) or _is_bytes(features[name])]


def _can_hold_image(split: Dataset, name: str) -> bool:
    feature = split.features[name]
    is_record = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    return isinstance(feature, Image) or is_text(feature) or _is_bytes(feature) or is_record or holds_arrays(feature)


def _is_bytes(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")


def holds_paths(split: Dataset, name: str, features: Features | None = None) -> bool:
    """Whether the column's first values end like image files.

    Args:
        split: with the column.
        name: of the column.
        features: of the split, whose own are a copy at every look: for callers that ask for many columns.
    """
    if not is_text((features or split.features)[name]) or not len(split):
        return False
    first = [value for value in split.select_columns([name])[: min(20, len(split))][name] if value]
    return bool(first) and all(value.lower().endswith(IMAGE_SUFFIXES) for value in first)
