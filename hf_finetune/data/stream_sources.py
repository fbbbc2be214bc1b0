"""Where streamed rows come from: shards of the Hub, of this machine, or a source of the caller's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from datasets import Features

from hf_finetune.data.files import reason_of
from hf_finetune.data.guarded import guarded
from hf_finetune.data.shards import RowSource
from hf_finetune.data.shards_json import JsonRows
from hf_finetune.data.shards_parquet import ParquetRows
from hf_finetune.data.shards_tar import TarRows
from hf_finetune.data.shown import shown
from hf_finetune.data.sources import expand, is_hub_name, nearest_path
from hf_finetune.data.split_names import AUTO
from hf_finetune.errors import DataError, UserError, unreachable

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data

_READERS: dict[str, Any] = {"parquet": ParquetRows, "json": JsonRows, "webdataset": TarRows}
_ENDINGS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".tar": "webdataset"}
_WHAT = "parquet, JSON lines and tar shards (WebDataset)"


def open_stream(data: Data, source: Any = None) -> dict[str, RowSource]:
    """The sources of a data section by split; rows are counted, and none is decoded.

    Raises:
        DataError: there is no such file or data set, or it is of a kind that cannot be read a part at a time.
        UserError: the network is missing.
    """
    alone = "train" if data.train_split == AUTO else data.train_split
    if source is not None:
        return _from_memory(source)
    given = data.dataset
    try:
        if isinstance(given, dict):
            return {split: _of_files(expand(files)) for split, files in given.items()}
        if not isinstance(given, str):
            return {alone: _of_files(expand(given))}
        path = Path(given).expanduser()
        if path.is_dir():
            return _of_builder(str(path), data, path)
        if path.is_file() or any(char in given for char in "*?[") or path.suffix in _ENDINGS:
            return {alone: _of_files(expand(given))}
    except OSError as error:
        raise DataError(f"data.dataset={shown(given, 300)}: {shown(error, 300)}") from error
    if not is_hub_name(given):
        raise DataError(f"data.dataset={given}: there is no such file or folder.{nearest_path(path)}")
    return _of_builder(given, data)


def _from_memory(source: Any) -> dict[str, RowSource]:
    needed = ("features", "sizes", "stamp", "read")
    if isinstance(source, Mapping) and all(hasattr(split, name) for split in source.values() for name in needed):
        return {str(name): split for name, split in source.items()}
    raise UserError(
        "data.streaming=true takes data={split: source, ...} of sources with features, sizes, stamp and read(chunk, "
        f"columns); {type(source).__name__} was given. A data set in memory needs no streaming."
    )


def _of_files(paths: Sequence[Path]) -> RowSource:
    kinds = {_ENDINGS.get(path.suffix.lower()) for path in paths}
    if len(kinds) > 1 or None in kinds:
        endings = ", ".join(sorted({path.suffix or path.name for path in paths}))
        raise DataError(
            f"data.streaming=true reads {_WHAT}, of one kind at a time; {shown(paths[0], 200)} and the others end in "
            f"{endings}. Convert them, or say data.streaming=false."
        )
    found: RowSource = _READERS[kinds.pop() or ""]([str(path) for path in paths])
    return found


def _of_builder(name: str, data: Data, folder: Path | None = None) -> dict[str, RowSource]:
    """The files of a repository, or of a folder that is made like one, as `datasets` finds them."""
    try:
        with guarded(folder or name):
            builder = datasets.load_dataset_builder(name, data.config, revision=None if folder else data.revision)
            given = builder.config.data_files or {}
            found = {str(split): _places(files, folder or name) for split, files in given.items()}
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(f"data.dataset={name}: the Hub has no such data set, or it is private. {error}") from error
    except (ConnectionError, OSError) as error:
        if folder is not None:
            raise DataError(f"data.dataset={name}: {reason_of(error)}") from error
        words = (
            f"data.dataset={name}: the Hub cannot be reached ({reason_of(error)}), and rows are streamed from there. "
            "data.streaming=false reads what the cache of HF_HOME holds."
        )
        raise (unreachable(words) if isinstance(error, ConnectionError) else UserError(words)) from error
    except DataError as error:
        raise DataError(f"data.dataset={name}: {error}") from error
    except UserError:
        raise
    except Exception as error:  # a configuration that lacks, a README that cannot be read: it may be anything
        raise DataError(f"data.dataset={name}: {reason_of(error)}") from error
    kind = type(builder).__module__.rpartition(".")[2]
    if kind == "cache":
        raise UserError(
            f"data.dataset={name}: the Hub is not asked (HF_HUB_OFFLINE), and the cache of HF_HOME holds the rows "
            "prepared, not their shards: say data.streaming=false."
        )
    if kind not in _READERS or not found:
        also = "" if folder else "; data.revision=refs/convert/parquet often has the same rows as parquet"
        raise DataError(
            f"data.dataset={name}: data.streaming=true reads {_WHAT}, and this is of the kind '{kind}'{also}. Or say "
            "data.streaming=false."
        )
    told = builder.info.features or getattr(builder.config, "features", None)
    features = told if isinstance(told, Features) else None
    return {split: _READERS[kind](files, features) for split, files in found.items()}


def _places(files: Any, home: Path | str) -> list[str]:
    from hf_finetune.data.places import check_place

    places = [str(file) for file in files]
    for place in places:
        check_place(place, home)
    return places
