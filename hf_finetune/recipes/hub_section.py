"""The `hub:` section: whether, and where, a finished run is pushed. Never taken from a stranger's recipe."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from hf_finetune.recipes.section import Section

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LONGEST = 96  # letters, on the Hub


def repository(name: str) -> str:
    """The name of a repository as it is, where it is one.

    Raises:
        ValueError: it is not `owner/name`.
    """
    if not _REPOSITORY.fullmatch(name) or len(name) > _LONGEST or "--" in name or ".." in name or name[-1] in ".-":
        raise ValueError(
            f"a repository as owner/name: letters, digits, '_', '-' and '.', of these two not two in a row and none at "
            f"the end, at most {_LONGEST} in all"
        )
    return name


class Hub(Section):
    """Where the run is pushed when it is finished; `hf-finetune push RUN` does so later."""

    push: bool = Field(
        False, description="Push the finished run: weights, processor, recipe, scores, model card, in one commit."
    )
    repo: Annotated[str, AfterValidator(repository)] | None = Field(
        None, description="owner/name; made if it does not exist."
    )
    private: bool = Field(False, description="Make the repository private, where it does not exist yet.")
    revision: str | None = Field(
        None, min_length=1, description="The branch to push to, made if it does not exist; main if left out."
    )
