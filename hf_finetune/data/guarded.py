"""What `datasets` fetches for a data set is looked at: where it lies, and what it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_finetune.data.json_nesting import safe_json
from hf_finetune.data.places import check_place
from hf_finetune.data.sizes import check_size


@contextmanager
def guarded(home: Path | str) -> Iterator[None]:
    """In the block, every file of a data set lies in it, and is looked at before it is unpacked or read.

    The README of a data set may name files anywhere, on this machine or another; `datasets` takes them all, and asks
    for them as soon as it looks which there are.

    Args:
        home: the folder that the data set is, or its name on the Hub.

    Raises:
        DataError: from within the block, of the first file that is refused.
    """
    from datasets import DownloadManager, data_files

    download, resolve = DownloadManager.download, data_files.resolve_pattern

    def resolved(pattern: str, base_path: str, *more: Any, **options: Any) -> list[str]:
        _look_at(_joined(pattern, base_path), home, options.get("download_config"))
        return resolve(pattern, base_path, *more, **options)

    def checked(self: Any, url_or_urls: Any) -> Any:
        for place in _places(url_or_urls):
            _look_at(place, home, self.download_config)
        found = download(self, url_or_urls)
        for place in _places(found):
            file = Path(place.rpartition("::")[2])  # gzip://inner.json::/the/file.gz
            if file.is_file():
                check_size(file)
        return found

    DownloadManager.download, data_files.resolve_pattern = checked, resolved
    try:
        with safe_json():
            yield
    finally:
        DownloadManager.download, data_files.resolve_pattern = download, resolve


def kept_by_libraries() -> list[Path]:
    """Where `datasets` and the Hub's client keep what they download and unpack."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    config = datasets.config
    folders = (HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH)
    return [Path(folder).resolve() for folder in folders]


def _joined(pattern: str, base_path: str) -> str:
    """A pattern as `resolve_pattern` takes it."""
    from datasets.utils.file_utils import is_relative_path, xjoin

    return xjoin(base_path, pattern) if is_relative_path(pattern) else pattern


def _look_at(place: str, home: Path | str, download_config: Any) -> None:
    """Its place, and what the archive around it becomes: to list or fetch what is inside would unpack it."""
    from datasets.utils.file_utils import cached_path

    if (around := check_place(place, home)) is not None:
        check_size(Path(cached_path(around, download_config=download_config)))


def _places(found: Any) -> Iterator[str]:
    if isinstance(found, (str, Path)):
        yield str(found)
    elif isinstance(found, (dict, list, tuple)):
        for each in found.values() if isinstance(found, dict) else found:
            yield from _places(each)
