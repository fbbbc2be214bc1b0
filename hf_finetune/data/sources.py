"""Where samples come from: the Hub, a folder, files, a package, or a data set in memory."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from datasets import Dataset, DatasetDict

from hf_finetune.data.columns import nearest
from hf_finetune.data.commits import of_commit
from hf_finetune.data.files import FORMATS, read_files, reason_of
from hf_finetune.data.folders import read_class_folders, read_folder
from hf_finetune.data.guarded import guarded
from hf_finetune.data.hub_paths import refuse_paths
from hf_finetune.data.packages import read_package
from hf_finetune.data.shown import shown
from hf_finetune.data.split_names import AUTO
from hf_finetune.disk import of_a_disk
from hf_finetune.errors import DataError, UserError, unreachable

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data

# What the recipe of a run says whose data was given in memory.
MEMORY = "memory:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def open_source(data: Data, source: Dataset | DatasetDict | None = None) -> dict[str, Dataset]:
    """Open the data section's source and return its splits by name; nothing is decoded yet.

    A file, a list of files or a single `Dataset` is one split, called by the name of `data.train_split` (auto: train).

    Raises:
        DataError: the source does not exist, is empty or cannot be read.
        UserError: the network or a package is missing.
    """
    if data.streaming:
        raise UserError(
            "This needs all rows, and with data.streaming=true they are not fetched: say data.streaming=false."
        )
    alone = "train" if data.train_split == AUTO else data.train_split
    if source is not None:
        return _from_memory(source, alone)
    if data.dataset == MEMORY:
        raise DataError("This run's data was given in memory. Pass it again (data=...), or say data.dataset=....")
    try:
        return _open_named(data, alone)
    except (OSError, ValueError) as error:  # a folder that may not be read, a name that no file can have
        raise DataError(f"data.dataset={shown(data.dataset, 300)}: {shown(error, 300)}") from error


def _open_named(data: Data, alone: str) -> dict[str, Dataset]:
    given = data.dataset
    if isinstance(given, dict):
        return {split: _read_split(files) for split, files in given.items()}
    if not isinstance(given, str):
        return {alone: read_files(expand(given))}
    if given.startswith("package:"):
        return read_package(given.removeprefix("package:"))
    path = Path(given).expanduser()
    if path.is_dir():
        return read_folder(path, data.config, alone)
    if path.is_file() or _looks_like_files(given):
        return {alone: read_files(expand(given))}
    if not is_hub_name(given):
        raise DataError(f"data.dataset={given}: there is no such file or folder.{nearest_path(path)}")
    return _from_hub(given, data)


def is_hub_name(given: str) -> bool:
    """Whether a data set that is no file and no folder can be one of the Hub."""
    return not given.startswith((".", "/", "~")) and _HUB_ID.fullmatch(given) is not None


def take_split(splits: Mapping[str, Dataset], name: str, key: str) -> Dataset:
    """The split that `key` of the recipe names.

    Raises:
        DataError: there is no such split; the message lists those there are and what else the key may be.
    """
    if name in splits:
        if len(splits[name]) == 0:
            raise DataError(f"{key}={name}: the split has no rows.")
        return splits[name]
    found = ", ".join(f"{split} ({len(rows):,} rows)" for split, rows in splits.items())
    instead = {
        "data.test_split": "Say data.test_split=NAME|0.2|null: one of these, a share of train, or no test.",
        "data.validation": "Say data.validation=NAME|0.1: one of these, or a share of train.",
    }.get(key, f"Say {key}=NAME.")
    raise DataError(f"{key}={name}: there is no such split.{nearest(name, splits)} The splits are: {found}. {instead}")


def _from_memory(source: Any, train_split: str) -> dict[str, Dataset]:
    if isinstance(source, Dataset):
        return {train_split: source}
    if isinstance(source, Mapping) and all(isinstance(split, Dataset) for split in source.values()):
        return {str(name): split for name, split in source.items()}
    raise UserError(f"data= takes a datasets.Dataset or DatasetDict; {type(source).__name__} was given.")


def _read_split(given: str | Sequence[str]) -> Dataset:
    folder = Path(given).expanduser() if isinstance(given, str) else None
    return read_class_folders(folder) if folder and folder.is_dir() else read_files(expand(given))


def _looks_like_files(text: str) -> bool:
    return any(char in text for char in "*?[") or text.lower().removesuffix(".gz").endswith(tuple(FORMATS))


def expand(files: str | Sequence[str]) -> list[Path]:
    """The files that names and globs stand for, in order."""
    paths: list[Path] = []
    for name in [files] if isinstance(files, str) else files:
        path = Path(name).expanduser()
        hits = [path] if path.is_file() else map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
        found = [hit for hit in hits if hit.is_file()]
        if not found:
            what = "no file matches" if any(char in name for char in "*?[") else "there is no such file"
            raise DataError(f"data.dataset={name}: {what}.{nearest_path(path)}")
        paths += found
    return paths


def nearest_path(path: Path) -> str:
    """What stands beside a path that does not exist."""
    folder = path.parent
    if not folder.is_dir():
        return f" The folder '{folder}' does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    is_glob = any(char in path.name for char in "*?[")
    return (not is_glob and nearest(path.name, names)) or f" The folder '{folder}' holds: {listed or 'nothing'}."


def _from_hub(name: str, data: Data) -> dict[str, Dataset]:
    config = data.config
    try:
        with guarded(name):
            splits = datasets.load_dataset(name, config, revision=data.revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"data.dataset={name}: the Hub has no such data set, or it is private. {_first_line(error)}"
        ) from error
    except (ConnectionError, OSError) as error:
        if (disk := of_a_disk(error, [Path(datasets.config.HF_DATASETS_CACHE)])) is not None:
            raise disk from error
        words = (
            f"data.dataset={name}: not in the cache of HF_HOME, and the Hub cannot be reached ({_first_line(error)}). "
            "Without the network, name a folder or files, or recipe=digits."
        )
        raise (unreachable(words) if isinstance(error, ConnectionError) else UserError(words)) from error
    except ValueError as error:
        wanted = f"data.config={config}: " if config else "data.config is not given: "
        raise DataError(f"data.dataset={name}: {wanted}{error}") from error
    except DataError as error:
        raise DataError(f"data.dataset={name}: {error}") from error
    except UserError:
        raise
    except Exception as error:  # files that are damaged or made to break their readers: it may be anything
        raise DataError(f"data.dataset={name}: {reason_of(error)}") from error
    asked = of_commit(name, config, data.revision, dict(splits))
    refuse_paths(name, data, asked)
    return asked


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
