"""The commits of the Hub's data sets that were loaded, for a recipe that is to give the same rows again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

# `datasets` keeps what it has prepared in OWNER___NAME/CONFIG/VERSION/COMMIT/; data from elsewhere has a longer digest.
_COMMIT = re.compile(r"[0-9a-f]{40}")


def data_commits(splits: Iterable[Dataset | None]) -> dict[str, str]:
    """Commits by `owner___name`, as far as the files that the rows lie in tell them."""
    files = (Path(file["filename"]) for split in splits if split is not None for file in split.cache_files)
    folders = (file.parts[-5:-1] for file in files)
    return {parts[0]: parts[3] for parts in folders if len(parts) == 4 and _COMMIT.fullmatch(parts[3])}


def commit_of_data(name: str, commits: dict[str, str]) -> str | None:
    """The commit of a data set by its name on the Hub; None where it is not known."""
    return commits.get(name.replace("/", "___"))
