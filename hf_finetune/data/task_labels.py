"""The labels of several tasks in one row of numbers, as batches carry them.

A class takes one column (its index), a multi-label task one column a label (0 or 1), a regression one a target. A label
that is missing is NaN in all columns of its task. float32 holds class indices exactly up to 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from hf_finetune.data.labels import LabelSpace, Target
from hf_finetune.recipes.section import ProblemType

SEVERAL = "several_tasks"  # in place of a problem type


@dataclass(frozen=True)
class TaskLabels:
    """One task.

    Args:
        name: of the recipe.
        column: its label column in the source.
        space: what is answered.
        columns: where its label is in a row of numbers.
        outputs: where its outputs are among the model's.
    """

    name: str
    column: str
    space: LabelSpace
    columns: slice
    outputs: slice

    @property
    def is_class(self) -> bool:
        """Whether each row has one class."""
        return self.space.problem_type == "single_label_classification"

    def labelled(self, packed: Any) -> Any:
        """Which rows of packed labels (N, W), an array or a tensor, have this task's label: (N,) of bool."""
        column = packed[:, self.columns.start]
        return column == column  # NaN is not itself

    def of(self, packed: np.ndarray) -> np.ndarray:
        """This task's labels in packed ones (N, W) without NaN, as the metrics take them."""
        labels = packed[:, self.columns]
        return labels[:, 0].astype(np.int64) if self.is_class else labels

    def target(self, packed: Sequence[float]) -> Target | None:
        """One row's label as `LabelSpace.decode` takes it; None where it is missing."""
        values = list(packed[self.columns])
        if math.isnan(values[0]):
            return None
        if self.is_class:
            return int(values[0])
        is_list = self.space.num_labels > 1 or self.space.problem_type == "multi_label_classification"
        return values if is_list else values[0]


@dataclass(frozen=True)
class ManyLabels(LabelSpace):
    """What a model of several tasks answers: the outputs of one task after the other, by the names "task: label"."""

    parts: tuple[TaskLabels, ...] = field(default=())

    @classmethod
    def of(cls, spaces: Mapping[str, tuple[str, LabelSpace]]) -> ManyLabels:
        """The tasks in their order: name -> (label column, what is answered)."""
        parts, column, output = [], 0, 0
        for name, (source, space) in spaces.items():
            width = 1 if space.problem_type == "single_label_classification" else space.num_labels
            places = slice(column, column + width), slice(output, output + space.num_labels)
            parts.append(TaskLabels(name, source, space, *places))
            column, output = places[0].stop, places[1].stop
        names = tuple(f"{part.name}: {label}" for part in parts for label in part.space.names)
        return cls(cast(ProblemType, SEVERAL), names, parts=tuple(parts))

    @property
    def tasks(self) -> tuple[TaskLabels, ...]:
        """The tasks, in the order of the recipe."""
        return self.parts

    @property
    def width(self) -> int:
        """Numbers in a row of labels."""
        return self.parts[-1].columns.stop

    def pack(self, targets: Mapping[str, Target | None]) -> list[float] | None:
        """A row of labels from those that it has, by the names of their tasks; None where it has none."""
        if all(targets.get(part.name) is None for part in self.parts):
            return None
        row = [math.nan] * self.width
        for part in self.parts:
            target = targets.get(part.name)
            if target is not None:
                row[part.columns] = [float(value) for value in (target if isinstance(target, list) else [target])]
        return row

    def strata(self, targets: Sequence[Target | None]) -> list[int] | None:
        """The classes of the first task that has one a row; None where there is no such task."""
        first = next((part for part in self.parts if part.is_class), None)
        if first is None:
            return None
        found = [None if target is None else first.target(target) for target in targets]  # type: ignore[arg-type]
        return first.space.strata(found)

    def decode(self, target: Target) -> list[str]:
        """The labels in words, one a task that has one."""
        found = [(part, part.target(target)) for part in self.parts]  # type: ignore[arg-type]
        return [f"{part.name}: {part.space.decode(value)}" for part, value in found if value is not None]

    def for_the_model(self) -> list[dict[str, Any]]:
        """The tasks as `MultiTaskConfig` takes them."""
        return [
            {"name": part.name, "problem_type": part.space.problem_type, "labels": list(part.space.names)}
            for part in self.parts
        ]


def labels_of_model(tasks: Sequence[Mapping[str, Any]]) -> ManyLabels:
    """The inverse of `ManyLabels.for_the_model`; the label columns are not known."""
    return ManyLabels.of({t["name"]: ("", LabelSpace(t["problem_type"], tuple(t["labels"]))) for t in tasks})
