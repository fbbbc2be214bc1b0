"""Where a data set's files may lie: in its own repository or folder, and in an archive there; nowhere else.

A card names files as fsspec knows them, hop after hop (`zip://a.csv::hf://datasets/owner/name/a.zip`). Some of its file
systems follow what a file says (`reference`), and others ignore all hops behind them (a path).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hf_finetune.errors import DataError

_PACKED = re.compile(r"(zip|tar|gzip|bz2|xz)://[^:]*")
_ELSEWHERE = re.compile(
    r"~|[A-Za-z][\w+.-]*:"
)  # a home, `file:/etc/passwd`; a path that has a colon later on is a path


def check_place(place: str, home: Path | str) -> str | None:
    """Refuse an address that is not of the data set.

    Args:
        place: as `datasets` is asked for it; patterns too.
        home: the folder of the data set, or its name on the Hub.

    Returns:
        the archive or packed file around it; None where it is a file of its own.

    Raises:
        DataError: it lies elsewhere, or behind more than one archive.
    """
    *inner, outer = place.split("::")
    lies = _in_folder(outer, home) if isinstance(home, Path) else _in_repository(outer, home)
    # An archive in an archive would be unpacked before anybody could measure it.
    if not lies or len(inner) > 1 or not all(map(_PACKED.fullmatch, inner)):
        whose = home if isinstance(home, Path) else "the data set's repository"
        raise DataError(f"The data set names {place[:200]} as one of its files, which lies outside of {whose}.")
    return outer if inner else None


def _in_repository(place: str, name: str) -> bool:
    from huggingface_hub.constants import ENDPOINT

    own = (f"hf://datasets/{name}@", f"hf://datasets/{name}/", f"{ENDPOINT}/datasets/{name}/resolve/")
    # Clients of http take `..` out of an address, and what is left may be another's repository.
    return place.lower().startswith(tuple(map(str.lower, own))) and ".." not in re.split(r"[/\\@]", place)


def _in_folder(place: str, folder: Path) -> bool:
    path = place.removeprefix("file://")
    if not path or _ELSEWHERE.match(path):
        return False
    # Links in a person's own folder may lead anywhere; `datasets` follows those that lead to it.
    file = Path(os.path.normpath(Path.cwd() / path))
    return any(file.is_relative_to(os.path.normpath(way)) for way in (Path.cwd() / folder, folder.resolve()))
