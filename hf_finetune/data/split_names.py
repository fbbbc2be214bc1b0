"""Which splits a data section means by `auto`: what a recipe says that was not written for this data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from datasets import Dataset

from hf_finetune.console import say

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data

AUTO = "auto"
_SHARE = 0.2  # of train, held out for the test where there is no split for it
_VALIDATION = ("validation", "valid", "val", "dev")


def settle_splits(data: Data, splits: Mapping[str, Dataset], test_is_read: bool = True) -> Data:
    """The data section with a name or a share in place of every `auto`; says what is not called as usual.

    Train is the split called train, else the only one there is. Test is the split called test; else, where the
    validation is a share of train, the only one called validation, valid, val or dev; else a share of train. Where it
    is not to be read (evaluation.test=false) a split of its own is left alone; a share is held out all the same.
    """
    train = data.train_split
    if train == AUTO:
        train = "train"
        if train not in splits and len(splits) == 1:
            (train,) = splits
            say(f"note: there is no split called train; '{train}', the only one, is taken (data.train_split).")
    test = data.test_split
    if test == AUTO:
        test = "test"
        if test not in splits or test in (train, data.validation):
            usual = [name for name in _VALIDATION if name in splits and name not in (train, data.validation)]
            # Beside a validation split of its own, another one of these names is no test.
            test = usual[0] if len(usual) == 1 and isinstance(data.validation, float) else _SHARE
            what = f"'{test}' is the test" if isinstance(test, str) else f"{test:.0%} of {train} are held out for it"
            say(f"note: there is no split called test; {what} (data.test_split=NAME|{_SHARE}|null).")
    if isinstance(test, str) and not test_is_read:
        test = None
    return data.model_copy(update={"train_split": train, "test_split": test})


def split_to_score(data: Data, splits: Mapping[str, Dataset]) -> str:
    """The split that a finished model is scored on, of data that it was not trained on: nothing is held out of it."""
    if len(splits) == 1:
        return next(iter(splits))
    if data.test_split != AUTO:
        return str(data.test_split)
    usual = [name for name in _VALIDATION if name in splits]
    if "test" in splits or len(usual) != 1:
        return "test"
    say(f"note: there is no split called test; '{usual[0]}' is scored (data.test_split=NAME).")
    return usual[0]
