"""Rows that stay in their files and are read a chunk at a time: what a source of them is, and how files are opened."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from datasets import Features

from hf_finetune.cache_home import cache_home
from hf_finetune.data.shown import shown
from hf_finetune.errors import DataError, UserError, unreachable
from hf_finetune.files import write_whole

_HUB = "hf://"
_AT_ONCE = 16  # files of which the beginning or the end is looked at together
_MOST_CHUNK = 2**31  # bytes of rows that are read together
_BROKEN = (pa.ArrowException, tarfile.TarError, OSError, EOFError, ValueError, RecursionError, OverflowError)
_TOO_MANY, _SERVERS_OWN = 429, 500  # of HTTP: too many requests; and from there on what is the server's fault
Found = TypeVar("Found")


class RowSource(Protocol):
    """Rows in chunks, each of which is read as one. Rows are counted from 0 over all chunks, in order.

    What has these four can be streamed: `finetune(recipe, data={"train": source, ...})` with `data.streaming=true`.
    """

    features: Features
    """Columns and their types, as of `datasets`."""
    sizes: np.ndarray
    """Rows of each chunk, int64 (chunks,)."""
    stamp: str
    """Another one where the rows are others."""

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a chunk, its rows in order."""
        ...


class Shards:
    """What the sources of files have in common.

    Args:
        files: paths, or places in a repository of the Hub (`hf://datasets/...`).
        features: of the rows.
        places: of each chunk: the number of its file, and where in it.
        sizes: rows of each chunk.
        weight: bytes of a chunk in memory, about.
    """

    def __init__(self, files: Sequence[str], features: Features, places: Any, sizes: Any, weight: float) -> None:
        if not np.sum(sizes):
            raise DataError(f"{', '.join(files[:3])}: no rows.")
        self.files, self.features = tuple(files), features
        self.places = np.asarray(places, dtype=np.int64).reshape(len(places), -1)
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.weight = weight
        digest = hashlib.blake2b(repr([stamp_of(file) for file in files]).encode(), digest_size=16)
        digest.update(self.places.tobytes() + self.sizes.tobytes())
        self.stamp = digest.hexdigest()

    @property
    def strange(self) -> bool:
        """Whether the rows are of the Hub: they name no files of this machine."""
        return self.files[0].startswith(_HUB)

    def file_of(self, chunk: int) -> str:
        """The file that a chunk lies in."""
        return self.files[self.places[chunk, 0]]


def open_file(file: str) -> Any:
    """A file of this machine, or of the Hub, to be read from anywhere; nothing is downloaded before it is read."""
    if not file.startswith(_HUB):
        return Path(file).open("rb")
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(file, "rb")


def size_of(file: str) -> int:
    """Bytes of a file."""
    if not file.startswith(_HUB):
        return Path(file).stat().st_size
    from huggingface_hub import HfFileSystem

    return int(HfFileSystem().info(file)["size"])


def stamp_of(file: str) -> tuple[str, int, int]:
    """Another one where the file has changed. The name of a file of the Hub holds its commit."""
    if file.startswith(_HUB):
        return file, 0, 0
    status = Path(file).stat()
    return str(Path(file).resolve()), status.st_size, status.st_mtime_ns


@contextmanager
def as_shard(file: str, kind: str) -> Iterator[None]:
    """Inside, a file is read: what goes wrong is told of it.

    Args:
        file: of this machine or of the Hub.
        kind: what it is read as, in words.

    Raises:
        DataError: it is broken, or gone, or the Hub does not give it.
        TransientError: the Hub does not answer.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (found := _of_the_hub(file, error)) is not None:
            raise found from error
        if not isinstance(error, _BROKEN):
            raise
        raise DataError(f"{file} cannot be read as {kind}: {shown(error, 300)}") from error


def _of_the_hub(file: str, error: Exception) -> UserError | None:
    """What the Hub's client says, without the server's words: it may repeat the token that it refuses."""
    from huggingface_hub.errors import HTTPError

    if not file.startswith(_HUB) or not isinstance(error, (HTTPError, ConnectionError, TimeoutError)):
        return None
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None or status == _TOO_MANY or status >= _SERVERS_OWN:
        answer = type(error).__name__ if status is None else f"status {status}"
        return unreachable(f"{file}: the Hub cannot be reached ({answer}). The same command goes on.")
    return DataError(
        f"{file}: the Hub does not give it (status {status}). Loader workers have no token: of private data sets use "
        "training.dataloader_num_workers=0."
    )


def of_each(look: Callable[[str], Found], files: Sequence[str]) -> list[Found]:
    """What a look at each of the files finds, several at a time.

    Raises:
        DataError: of the first file that is not what it should be.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(look, files))


def kept_index(file: str, make: Callable[[str], list[list[int]]]) -> list[list[int]]:
    """Where the rows of a file lie, from a look through all of it; kept beside other things until the file changes."""
    key = hashlib.blake2b(repr((make.__qualname__, stamp_of(file))).encode(), digest_size=16).hexdigest()
    path = cache_home() / "shards" / f"{key}.json"
    with suppress(OSError, ValueError, EOFError):
        found: list[list[int]] = json.loads(path.read_text())
        return found
    found = make(file)
    with suppress(OSError):  # a home that cannot be written to: the next run looks again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(found))
    return found


def kept_places(files: Sequence[str], make: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """What a look at many files finds of each chunk, int64 (chunks, facts); kept until one of the files changes."""
    key = hashlib.blake2b(repr((make.__qualname__, [stamp_of(file) for file in files])).encode(), digest_size=16)
    path = cache_home() / "shards" / f"{key.hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):
        kept: np.ndarray = np.load(path, allow_pickle=False)
        return kept
    found = make(files)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda place: np.save(place, found))
    return found


def check_chunk(file: str, size: int, what: str) -> None:
    """Refuse what cannot be held in memory together.

    Raises:
        DataError: it is more than 2 GiB.
    """
    if size > _MOST_CHUNK:
        raise DataError(
            f"{file}: {what} of {size / 2**30:.1f} GiB cannot be read at once. Write the file anew with smaller ones "
            "(some megabytes each), or say data.streaming=false."
        )
