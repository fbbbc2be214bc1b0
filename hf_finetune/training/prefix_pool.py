"""Features that folds have in common: of all rows of train, whichever of them a fold trains on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.data.roles import ROLES

if TYPE_CHECKING:
    from hf_finetune.training.prefix_setup import Making


def samples_of(making: Making, number: int) -> tuple[Any, np.ndarray | None]:
    """The samples whose features are kept for a split, and the places (n,) of its own among them.

    Where train has folds, these are all its rows: the first run computes them, every other one finds them. Not where
    each run has something of its own: random changes of images are drawn by places in the split, and max_per_class
    draws other rows in each fold.

    Args:
        making: the run that they are for.
        number: of the split.

    Returns:
        samples, and None in place of the places where they are the split's own.
    """
    own: Any = making.real.splits[number]
    role, pool, clean = ROLES[number], making.task.pool, making.recipe.data.clean
    of_train = role in ("train", "held_out") or (
        role == "validation" and isinstance(making.task.whence.get("validation"), float)
    )
    if pool is None or not of_train or (number == 0 and making.changed) or getattr(own, "channels", 3) != 3:
        return own, None
    if clean is not None and clean.max_per_class is not None:
        return own, None
    split = getattr(making.task, role)
    return making.pool, np.searchsorted(np.asarray(pool["id"][:]), np.asarray(split["id"][:]))
