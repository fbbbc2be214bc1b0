"""Errors written for the person who reads them: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 100  # faults: nobody reads more at once
EXIT_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: not done, and nothing to mend in the command; give it again


class UserError(Exception):
    """Something the user can mend: a recipe, an argument, the data. Shown without a traceback, exit code 2."""

    exit_code = 2


class TransientError(UserError):
    """What stands in the way of a command that is right: a disk, the network, another process. Exit code 75."""

    exit_code = EXIT_AGAIN


def unreachable(words: str) -> UserError:
    """What is to be raised where the Hub cannot be reached; where the user has switched it off, that is to be mended.

    Args:
        words: what is missing, and what to do.
    """
    from huggingface_hub.constants import is_offline_mode

    return UserError(words) if is_offline_mode() else TransientError(words)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe.

    Args:
        path: the dotted path of the key, for example `training.learning_rate`.
        message: what was given, what is allowed, what to do.
        origin: where the value came from, for example `cifar10.yaml line 12` or `command line`.
    """

    path: str
    message: str
    origin: str = ""

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return f"{self.path}{where}: {self.message}"


class RecipeError(UserError):
    """All faults of a recipe at once."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        shown = [f"  {fault}" for fault in self.faults[:_SHOWN]]
        if len(self.faults) > _SHOWN:
            shown.append(f"  and {len(self.faults) - _SHOWN:,} more")
        super().__init__(f"{count} in the recipe:\n" + "\n".join(shown))


class DataError(UserError):
    """The data cannot be used as it is."""
