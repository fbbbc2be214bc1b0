"""What a model answers: classes, sets of classes, or numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.data.shown import shown

if TYPE_CHECKING:
    from hf_finetune.data.task_labels import TaskLabels
    from hf_finetune.recipes.schema import ProblemType

_LARGEST = 1e18  # its square still fits into float32
Target = int | float | list[float]


@dataclass(frozen=True)
class LabelSpace:
    """What the model answers.

    Args:
        problem_type: transformers' word for the kind of answer.
        names: class names in the order of the model's outputs; for regression the names of the target columns.
        multi_hot: lists in the source hold a 0 or 1 for every label, and not the labels that are set.
    """

    problem_type: ProblemType
    names: tuple[str, ...]
    multi_hot: bool = field(default=False, compare=False)  # how a source writes its labels, not what they are

    @property
    def num_labels(self) -> int:
        """Outputs of the model."""
        return len(self.names)

    @property
    def tasks(self) -> tuple[TaskLabels, ...]:
        """The tasks of `ManyLabels`; none where there is one label column."""
        return ()

    def for_the_model(self) -> list[dict[str, Any]]:
        """The tasks as `MultiTaskConfig` takes them; none here."""
        return []

    def strata(self, targets: Sequence[Target | None]) -> list[int] | None:
        """A class for every target, -1 where it is missing; None where there are no classes to stratify by."""
        if self.problem_type != "single_label_classification":
            return None
        return [-1 if target is None else int(target) for target in targets]  # type: ignore[arg-type]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def encode(self, value: Any) -> Target:
        """A label as it stands in the source (a class by its name) as the model's target.

        Returns:
            the class index, a multi-hot list, a float, or a list of floats (several regression targets).

        Raises:
            KeyError: a class that is not in the space.
            ValueError: the label is missing or not a finite number.
        """
        if is_missing(value):
            raise ValueError("the label is missing")
        if self.problem_type == "single_label_classification":
            return self._index[class_name(value)]
        if self.problem_type == "multi_label_classification":
            return self._encode_list(value)
        numbers = [_number(item) for item in value] if isinstance(value, (list, tuple)) else [_number(value)]
        if len(numbers) != self.num_labels:
            raise ValueError(f"{len(numbers)} numbers where {self.num_labels} are expected")
        return numbers if isinstance(value, (list, tuple)) and self.num_labels > 1 else numbers[0]

    def _encode_list(self, value: Any) -> list[float]:
        """A list of labels, or of a 0 or 1 for each label, as multi-hot."""
        if any(map(is_missing, value)):
            raise ValueError("a label in the list is missing")
        if self.multi_hot:
            if len(value) != self.num_labels:
                raise ValueError(f"{len(value)} values where {self.num_labels} are expected, a 0 or 1 for each label")
            if strange := [item for item in value if item not in (0, 1)]:
                raise ValueError(f"{strange[0]!r} where a 0 or 1 for each label is expected")
            return [float(item) for item in value]
        hot = [0.0] * self.num_labels
        for item in value:
            hot[self._index[class_name(item)]] = 1.0
        return hot

    def decode(self, target: Target) -> str | list[str] | float | list[float]:
        """The inverse of `encode`: a name, the names of a multi-hot list, or the number(s)."""
        if self.problem_type == "single_label_classification":
            return self.names[int(target)]  # type: ignore[arg-type]
        if self.problem_type == "multi_label_classification":
            return [name for name, hot in zip(self.names, target, strict=True) if hot > 0.5]  # type: ignore[arg-type]
        return target


def is_missing(value: Any) -> bool:
    """None, NaN, or text of nothing but white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def class_name(value: Any) -> str:
    """The name of a class given as text, a truth value or a whole number."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(value: Any) -> float:
    if is_missing(value):
        raise ValueError("a number in the label is missing")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"the label '{shown(value)}' is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"the label is {number}")
    if abs(number) > _LARGEST:
        raise ValueError(f"the label is {number:g}: numbers up to {_LARGEST:g} can be learnt")
    return number
