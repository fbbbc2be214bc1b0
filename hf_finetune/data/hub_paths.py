"""Images of a data set of the Hub are in it: a row that names a file of this machine instead would have it opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image

from hf_finetune.data.columns import holds_paths
from hf_finetune.data.guarded import kept_by_libraries
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data


def refuse_paths(name: str, data: Data, splits: Mapping[Any, Dataset]) -> None:
    """Refuse rows whose image is a path, unless `datasets` itself has put the file there.

    Args:
        name: of the data set, for messages.
        data: which columns the recipe names.
        splits: as `datasets.load_dataset` gives them.

    Raises:
        DataError: the first row that names another file.
    """
    kept = kept_by_libraries()
    for split, rows in splits.items():
        found = data.image is None and data.text is None and not any(map(_is_image, rows.features.values()))
        for column, feature in rows.features.items():
            if (found or data.image == column) and holds_paths(rows, column):
                raise DataError(
                    f"data.dataset={name}: the column '{column}' of {split} holds paths of images, and a data set of "
                    "the Hub has the images in it. Download it, and name its folder or files."
                )
            if not _is_image(feature):
                continue
            for path in _paths(rows, column):
                if not any(Path(path).resolve().is_relative_to(cache) for cache in kept):
                    raise DataError(
                        f"data.dataset={name}: column '{column}' of {split} names the file {path[:200]} of this "
                        "machine, which is not of the data set."
                    )


def _is_image(feature: Any) -> bool:
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _paths(rows: Dataset, column: str) -> set[str]:
    """The paths of rows without an image of their own, read from the table without the images."""
    found: set[str] = set()
    for chunk in rows.data.column(column).chunks:
        storage = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        if not pa.types.is_struct(storage.type):
            continue
        lacking = pc.and_(pc.is_null(storage.field("bytes")), pc.is_valid(storage.field("path")))
        found |= {str(path) for path in pc.unique(storage.field("path").filter(lacking)).to_pylist()}
    return found
