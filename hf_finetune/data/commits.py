"""The commits of the Hub's data sets that were loaded, for a recipe that is to give the same rows again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import datasets
from datasets import Dataset

from hf_finetune.errors import UserError

# `datasets` keeps what it has prepared in OWNER___NAME/CONFIG/VERSION/COMMIT/; data from elsewhere has a longer digest.
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACE = re.compile(r"hf://datasets/(.+)@([0-9a-f]{40})/")  # of a file that is streamed
_PART_OF_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def data_commits(splits: Iterable[Dataset | None]) -> dict[str, str]:
    """Commits by `owner___name`, as far as the files that the rows lie in tell them."""
    splits = list(splits)
    files = (Path(file["filename"]) for split in splits if split is not None for file in split.cache_files)
    folders = (file.parts[-5:-1] for file in files)
    found = {parts[0]: parts[3] for parts in folders if len(parts) == 4 and _COMMIT.fullmatch(parts[3])}
    places = [place for split in splits for place in getattr(split, "places", ())]
    return found | {m[1].replace("/", "___"): m[2] for place in places if (m := _PLACE.match(place))}


def commit_of_data(name: str, commits: dict[str, str]) -> str | None:
    """The commit of a data set by its name on the Hub; None where it is not known."""
    return commits.get(name.replace("/", "___"))


def of_commit(name: str, config: str | None, revision: str | None, splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """The splits that were loaded, if they are of the commit that was asked for; else those of that commit.

    Without the network `datasets` takes the newest that its cache holds, whatever the revision: rows, columns and
    labels may be others than a recipe was written for.

    Args:
        name: of the data set on the Hub.
        config: data.config.
        revision: data.revision; that of a branch or a tag cannot be compared, and is not.
        splits: as `load_dataset` gave them.

    Raises:
        UserError: the cache holds other commits alone.
    """
    found = set(data_commits(splits.values()).values())
    if revision is None or not found or not _PART_OF_COMMIT.fullmatch(revision):
        return splits
    if any(commit.startswith(revision) for commit in found):
        return splits
    if (kept := _kept(name, config, revision)) is not None:
        return kept
    raise UserError(
        f"data.revision={revision}: the cache of HF_HOME holds {name} of the commit {', '.join(sorted(found))} "
        "instead, whose rows, columns and labels may differ. With the network the right one is fetched; or say "
        "data.revision=null to take the one that is there."
    )


def _kept(name: str, config: str | None, revision: str) -> dict[str, Dataset] | None:
    """The splits of a commit that the cache holds beside newer ones."""
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    *owner, short = name.split("/")
    home = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(short)])
    folders = [folder for folder in home.glob(f"{config or '*'}/*/{revision}*") if folder.is_dir()]
    if len(folders) != 1:
        return None
    found, version, commit = folders[0].parts[-3:]
    builder = Cache(repo_id=name, dataset_name=short, config_name=found, version=version, hash=commit)
    return dict(builder.as_dataset())
