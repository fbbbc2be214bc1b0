"""What `datasets` fetches for a data set is looked at: where it lies, and what it becomes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_finetune.data.sizes import check_size
from hf_finetune.errors import DataError

_HUB = "hf://"


@contextmanager
def guarded(folder: Path | None = None) -> Iterator[None]:
    """In the block, every file of a data set lies in it, and is looked at before it is unpacked or read.

    The README of a data set may name files anywhere, on this machine or another; `datasets` takes them all.

    Args:
        folder: that the data set is; None for one of the Hub.

    Raises:
        DataError: from within the block, of the first file that is refused.
    """
    from datasets import DownloadManager

    download = DownloadManager.download

    def checked(self: Any, url_or_urls: Any) -> Any:
        for place in _places(url_or_urls):
            _check_place(place, folder)
        found = download(self, url_or_urls)
        for place in _places(found):
            file = Path(place.rpartition("::")[2])  # gzip://inner.json::/the/file.gz
            if file.is_file():
                check_size(file)
        return found

    DownloadManager.download = checked
    try:
        yield
    finally:
        DownloadManager.download = download


def kept_by_libraries() -> list[Path]:
    """Where `datasets` and the Hub's client keep what they download and unpack."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    config = datasets.config
    folders = (HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH)
    return [Path(folder).resolve() for folder in folders]


def _check_place(place: str, folder: Path | None) -> None:
    from huggingface_hub.constants import ENDPOINT

    outer = place.rpartition("::")[2]
    if "://" in outer and not outer.startswith("file://"):
        if folder is None and outer.startswith((_HUB, f"{ENDPOINT}/")):
            return
    else:
        # Without following links: those of a person's own folder may lead anywhere.
        file = Path(os.path.normpath(Path.cwd() / outer.removeprefix("file://")))
        allowed = [] if folder is None else [Path(os.path.normpath(Path.cwd() / folder))]
        if any(file.is_relative_to(one) for one in (*allowed, *kept_by_libraries())):
            return
    whose = "the data set's repository" if folder is None else folder
    raise DataError(f"The data set names {outer[:200]} as one of its files, which lies outside of {whose}.")


def _places(found: Any) -> Iterator[str]:
    if isinstance(found, (str, Path)):
        yield str(found)
    elif isinstance(found, (dict, list, tuple)):
        for each in found.values() if isinstance(found, dict) else found:
            yield from _places(each)
