"""Images of a data set of the Hub are in it: a row that names a file of this machine instead would have it opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image

from hf_finetune.data.columns import holds_paths, is_text
from hf_finetune.data.guarded import kept_by_libraries
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data


# In `info`, which selections and changes of columns copy; nothing that a data set brings says it.
_OF_HUB = "hf_finetune: of the Hub: "


def refuse_paths(name: str, data: Data, splits: Mapping[Any, Dataset]) -> None:
    """Refuse rows whose image is a path, unless `datasets` itself has put the file there.

    Which column is the image may be known later, or from another recipe: the splits are marked, for
    `refuse_text_of_hub`.

    Args:
        name: of the data set, for messages.
        data: which columns the recipe names.
        splits: as `datasets.load_dataset` gives them.

    Raises:
        DataError: the first row that names another file.
    """
    for rows in splits.values():
        rows.info.homepage = f"{_OF_HUB}{name}"
    kept = kept_by_libraries()
    for split, rows in splits.items():
        found = data.image is None and data.text is None and not any(map(_is_image, rows.features.values()))
        for column, feature in rows.features.items():
            if data.image == column or (found and holds_paths(rows, column)):
                refuse_text_of_hub(rows, column)
            if not _is_image(feature):
                continue
            for path in _paths(rows, column):
                if not any(Path(path).resolve().is_relative_to(cache) for cache in kept):
                    raise DataError(
                        f"data.dataset={name}: column '{column}' of {split} names the file {path[:200]} of this "
                        "machine, which is not of the data set."
                    )


def refuse_text_of_hub(rows: Dataset, image: str) -> None:
    """Refuse a column of texts as the images of a data set of the Hub: whatever its rows say would be opened.

    Args:
        rows: any data set; one of the Hub has gone through `refuse_paths`.
        image: the column that is taken as the image.

    Raises:
        DataError: it holds texts, and the rows are of the Hub.
    """
    whence = rows.info.homepage or ""
    if whence.startswith(_OF_HUB) and is_text(rows.features[image]):
        raise DataError(
            f"data.dataset={whence.removeprefix(_OF_HUB)}: the column '{image}' holds paths of images, and a data set "
            "of the Hub has the images in it. Download it, and name its folder or files."
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
