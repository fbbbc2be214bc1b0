"""What a recipe of the Hub may not say: it is data of somebody else's, and names nothing on this machine.

Where files are written or pushed, and whom the run reports to, is left out (`leave_out_what_is_the_users`). What it
reads must be on the Hub or ship with hf_finetune; a path is a fault, unless the command line gives another value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

from hf_finetune.errors import Fault
from hf_finetune.recipes.overrides import Tree
from hf_finetune.recipes.training_arguments import REPORTING
from hf_finetune.recipes.yaml_text import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SHIPPED = re.compile(r"package:[A-Za-z0-9_-]+")
_EXTERNAL = "evaluate:"
_DATA: tuple[Path, ...] = (("data", "dataset"),)
_MODELS: tuple[Path, ...] = (("model", "checkpoint"), ("distill", "teacher"))
# As a data set's name these mean files of the working directory, not a repository: the builders of `datasets`.
_BUILDERS = {
    "arrow", "audiofolder", "conll", "csv", "eval", "fasta", "fastq", "generator", "genbank", "harbor", "hdf5",
    "iceberg", "imagefolder", "json", "lance", "meshfolder", "mmcif", "niftifolder", "pandas", "parquet", "pdb",
    "pdffolder", "spark", "sql", "text", "tsfile", "videofolder", "vortex", "webdataset", "xml",
}  # fmt: skip


def leave_out_what_is_the_users(tree: Tree, own: str) -> None:
    """A stranger's recipe does not choose where files are written or pushed, or whom the run reports to.

    Args:
        tree: the recipe, changed in place.
        own: the output_dir that it gets.
    """
    for path in [("output_dir",), ("hub",), *(("training", name) for name in REPORTING)]:
        value = tree.get(path)
        tree.remove(path)
        asks = any(each not in (None, "false") for each in value.values()) if isinstance(value, dict) else value != own
        if value is not None and asks:
            tree.notes.append(
                f"{'.'.join(path)}={_short(value)} is not taken from a recipe of the Hub; give it on the command line"
            )
    tree.set(("output_dir",), own, "default")


def faults_of_strangers(tree: Tree, source: str) -> list[Fault]:
    """Every place on this machine that the recipe names, where the user has not put another value there.

    Args:
        tree: the recipe with the user's overrides.
        source: what origins of the recipe's own values begin with.
    """
    found = []
    for path, name in _names(tree):
        origin = _origin(path, tree)
        if origin.startswith(source) and (message := _not_allowed(path, name)):
            found.append(Fault(".".join(path), f"'{_short(name)}' {message}", origin))
    return found


def _names(tree: Tree) -> Iterator[tuple[Path, str]]:
    """Everything that is read by its name, with the path of its key."""
    tasks = tree.get(("tasks",))
    own = [("tasks", name, "data", "dataset") for name in tasks] if isinstance(tasks, dict) else []
    for path in (*_DATA, *_MODELS, *own):
        for name in _texts(tree.get(path)):
            yield path, name
    scored = [("tasks", name, "metrics") for name in tasks] if isinstance(tasks, dict) else []
    for path in (("evaluation", "metrics"), ("evaluation", "best"), *scored):
        for name in _texts(tree.get(path)):
            if name.startswith(_EXTERNAL):
                yield path, name


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _not_allowed(path: Path, name: str) -> str | None:
    """Why a stranger's recipe may not name this, or None."""
    data = path[-1] == "dataset"
    key = ".".join(path)
    if _SHIPPED.fullmatch(name) or (data and name == "memory:"):  # the run itself says that this data is needed
        return None
    name = name.removeprefix(_EXTERNAL)
    if not _HUB_ID.fullmatch(name) or ".." in name or (data and name in _BUILDERS):
        return (
            "lies on the machine of whoever made the recipe, and a recipe of the Hub reads no files here: "
            f"give {key}=... of your own"
        )
    if File(name).exists():
        return (
            f"means the Hub's, and the working directory has something of that name, which would be taken: start "
            f"elsewhere, or say {key}={name} yourself to mean yours"
        )
    return None


def _origin(path: Path, tree: Tree) -> str:
    return next((tree.origins[path[:end]] for end in range(len(path), -1, -1) if path[:end] in tree.origins), "")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
