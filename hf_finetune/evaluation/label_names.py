"""Labels of a data set in the order of the outputs of a model that does not name its classes.

Those of a model that does are matched by name when they are read (`hf_finetune.data.roles.encode_for`).
"""

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
    """Labels as a model whose classes are called LABEL_0, LABEL_1, ... numbers them.

    Args:
        labels: (N,) class numbers or (N, C) of 0 and 1 in the order of `space`.
        space: the data's labels.
        model_names: the model's, in the order of its outputs.
        problem_type: the model's.

    Returns:
        (N,) or (N, len(model_names)).

    Raises:
        UserError: another kind of label, or another number of classes.
    """
    if space.problem_type != problem_type:
        raise UserError(
            f"The model answers {problem_type.replace('_', ' ')}, the data's labels are "
            f"{space.problem_type.replace('_', ' ')}. Name another column with data.label, or say data.problem_type."
        )
    places = _places(space.names, model_names)
    if problem_type == "single_label_classification":
        return places[labels.astype(np.int64)]
    placed = np.zeros((len(labels), len(model_names)), dtype=labels.dtype)
    placed[:, places] = labels
    return placed


def _places(data_names: Sequence[str], model_names: Sequence[str]) -> np.ndarray:
    """For each class of the data, its output of the model."""
    if set(data_names) <= set(model_names):
        return np.array([model_names.index(name) for name in data_names])
    if len(model_names) == len(data_names):
        warn(f"the model does not name its classes; taken in the data's order: {', '.join(data_names)}.")
        return np.arange(len(data_names))
    raise UserError(
        f"The model does not name its {len(model_names):,} classes, and the data has {len(data_names):,}: "
        f"{_listed(data_names)}. Which is which cannot be told; evaluate on data with as many labels."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", ... ({len(names):,})" if len(names) > 20 else "")
