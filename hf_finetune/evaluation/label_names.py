"""Labels of a data set in the order of a model's outputs: matched by name, never by chance of order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.console import warn
from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes.schema import ProblemType

_UNNAMED = re.compile(r"LABEL_\d+")


def is_unnamed(name: str) -> bool:
    """Whether a label's name is transformers' stand-in for one that nobody gave."""
    return _UNNAMED.fullmatch(name) is not None


def place_labels(
    labels: np.ndarray, space: LabelSpace, model_names: Sequence[str], problem_type: ProblemType
) -> np.ndarray:
    """Labels as the model numbers its classes.

    Args:
        labels: (N,) class numbers or (N, C) of 0 and 1 in the order of `space`; numbers for regression.
        space: the data's labels.
        model_names: the model's, in the order of its outputs.
        problem_type: the model's.

    Returns:
        (N,) or (N, len(model_names)); for regression the labels as they are.

    Raises:
        UserError: another kind of label, or class names that the model does not have; both sets are listed.
    """
    if space.problem_type != problem_type:
        raise UserError(
            f"The model answers {problem_type.replace('_', ' ')}, the data's labels are "
            f"{space.problem_type.replace('_', ' ')}. Name another column with data.label, or say data.problem_type."
        )
    if problem_type == "regression":
        if space.num_labels != len(model_names):
            raise UserError(
                f"The model has {len(model_names)} outputs, the data {space.num_labels}: {', '.join(space.names)}."
            )
        return labels
    places = _places(space.names, model_names)
    if problem_type == "single_label_classification":
        return places[labels.astype(np.int64)]
    placed = np.zeros((len(labels), len(model_names)), dtype=labels.dtype)
    placed[:, places] = labels
    return placed


def _places(data_names: Sequence[str], model_names: Sequence[str]) -> np.ndarray:
    """For each class of the data, its output of the model."""
    for spelling in (str, str.casefold):
        index = {spelling(name): place for place, name in enumerate(model_names)}
        wanted = [spelling(name) for name in data_names]
        if len(index) == len(model_names) and set(wanted) <= set(index):
            return np.array([index[name] for name in wanted])
    if all(is_unnamed(name) for name in model_names) and len(model_names) == len(data_names):
        warn(f"the model does not name its classes; taken in the data's order: {', '.join(data_names)}.")
        return np.arange(len(data_names))
    unknown = [name for name in data_names if name not in model_names]
    raise UserError(
        f"The data has labels that the model does not know: {_listed(unknown)}.\n"
        f"  data:  {_listed(data_names)}\n  model: {_listed(model_names)}\n"
        "Evaluate on data with the model's labels, or rename the data's."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", ... ({len(names):,})" if len(names) > 20 else "")
