"""Images of any number of channels: grey, RGBA, and arrays of more bands than an image file can hold.

An array travels as the bytes of a .npy file in the column `image`, as encoded images do.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from datasets import Array2D, Array3D, Dataset, Features, LargeList, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_finetune.data.images import decode_image
from hf_finetune.errors import UserError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MAGIC = b"\x93NUMPY"
Pixels = Image.Image | np.ndarray


def channels_of(processor: Any) -> int:
    """How many channels a processor normalizes."""
    config = getattr(processor, "data_config", None)  # timm's
    mean = config["mean"] if config else getattr(processor, "image_mean", None)
    return len(mean) if isinstance(mean, Sequence) and len(mean) else 3


def decode_channels(value: Any, channels: int) -> Pixels:
    """An image of so many channels: PIL of mode L, RGB or RGBA for 1, 3 or 4, else an array (channels, H, W).

    Args:
        value: what `decode_image` takes; or a stored array (.npy bytes, a path, or the array itself) of shape (H, W),
            (H, W, C) or (C, H, W): bytes or 16-bit integers over their full range, floats 0 to 1.
        channels: C.

    Raises:
        OSError: it cannot be decoded, or has another number of channels.
    """
    if isinstance(value, np.ndarray) or is_bands(value):
        array = _channels_first(load_bands(value), channels)
        if channels not in _MODES:
            return array
        levels = np.rint(array).astype(np.uint8)
        return Image.fromarray(levels[0] if channels == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))
    if channels not in _MODES:
        raise OSError(f"it is an image, and the model takes {channels} channels: store arrays (.npy files, Array3D)")
    return decode_image(value) if channels == 3 else decode_image(value, _MODES[channels])


def is_bands(value: Any) -> bool:
    """Whether a stored value is an array rather than an image."""
    value = _content(value)
    if isinstance(value, bytes):
        return value.startswith(_MAGIC)
    return isinstance(value, str | Path) and str(value).lower().endswith(".npy")


def load_bands(value: Any) -> np.ndarray:
    """A stored array as it is.

    Raises:
        OSError: it cannot be read, or is no array of numbers with 2 or 3 axes.
    """
    if not isinstance(value, np.ndarray):
        content = _content(value)
        try:
            with io.BytesIO(content) if isinstance(content, bytes) else Path(content).open("rb") as file:
                _check_length(file)
                value = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, SyntaxError) as fault:
            raise OSError(f"the array cannot be read: {fault}") from fault
    if (
        value.ndim not in (2, 3)
        or value.size == 0
        or not (value.dtype == bool or np.issubdtype(value.dtype, np.number))
    ):
        raise OSError(f"the array has shape {value.shape} and type {value.dtype}: (H, W), (H, W, C) or (C, H, W) fit")
    return np.asarray(value)


def _check_length(file: BinaryIO) -> None:
    """numpy makes room for what a header promises, however short the file is."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    promised, begin = math.prod(shape) * kind.itemsize, file.tell()
    if promised > (held := file.seek(0, io.SEEK_END) - begin):
        raise OSError(f"the array says shape {shape}, {promised:,} bytes, and its file holds {held:,}")
    file.seek(0)


def _content(value: Any) -> Any:
    if isinstance(value, dict):
        return value["bytes"] if value.get("bytes") is not None else value.get("path")
    return value


def _channels_first(array: np.ndarray, channels: int) -> np.ndarray:
    """(C, H, W) in levels of 0 to 255: uint8 where they are whole, else float32."""
    array = array[:, :, None] if array.ndim == 2 else array
    if array.shape[2] == channels:
        array = array.transpose(2, 0, 1)
    elif array.shape[0] != channels:
        raise OSError(f"the array has shape {array.shape}, and the model takes {channels} channels")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    scale = 255.0 if np.issubdtype(array.dtype, np.floating) else 1 / 257 if array.dtype == np.uint16 else 1.0
    levels = array.astype(np.float32) * np.float32(scale)
    if not (levels.min() >= 0 and levels.max() <= 255.001):
        raise OSError(
            f"the array holds {array.min():g} to {array.max():g}: floats are 0 to 1, integers 0 to 255, or uint16 over "
            "its full range"
        )
    return levels


def pixels_of(processor: Any, images: Sequence[Pixels]) -> list[torch.Tensor]:
    """Images of one kind as the processor makes them: float32 (channels, height, width) each.

    On a list, processors group images by size: one image gives the same pixels alone and in company.
    """
    if not isinstance(images[0], np.ndarray):
        return list(processor(list(images), return_tensors="pt")["pixel_values"])
    if hasattr(processor, "data_config"):  # timm's takes one tensor of 0 to 1 at a time
        tensors = [torch.from_numpy(np.array(image, dtype=np.float32)) / 255 for image in images]
        return [processor(tensor, return_tensors="pt")["pixel_values"][0] for tensor in tensors]
    return list(processor(list(images), return_tensors="pt", input_data_format="channels_first")["pixel_values"])


def check_channels(split: Dataset, channels: int) -> None:
    """Stops before training where images cannot have the model's channels; of arrays, every row is looked at.

    Raises:
        UserError: the first row that does not fit, by its number.
    """
    if not len(split) or (channels in _MODES and not is_bands(split[0]["image"])):
        return
    for row in range(len(split)):
        if fault := _fault(split[row]["image"], channels):
            raise UserError(
                f"Row {row} of the images: {fault}. The checkpoint takes images of {channels} channels; for others say "
                "model.in_channels=N."
            )


def _fault(value: Any, channels: int) -> str | None:
    try:
        decode_channels(value, channels)
    except OSError as fault:
        return str(fault)
    return None


def holds_arrays(feature: Any) -> bool:
    """Whether a column's type is that of arrays with 2 or 3 axes."""
    if isinstance(feature, Array2D | Array3D):
        return True
    depth = 0
    while isinstance(feature, List | LargeList):
        feature, depth = feature.feature, depth + 1
    return depth in (2, 3) and isinstance(feature, Value) and feature.dtype != "string"


def encode_arrays(rows: Dataset, column: str) -> Dataset:
    """The split with a column of arrays written as .npy bytes, as images are stored."""
    feature = rows.features[column]
    while isinstance(feature, List | LargeList):
        feature = feature.feature
    features = Features({**rows.features, column: ImageFeature(decode=False)})
    return rows.map(
        _encode, fn_kwargs={"column": column, "kind": feature.dtype}, features=features, desc="Reading arrays"
    )


def _encode(row: dict[str, Any], column: str, kind: str) -> dict[str, Any]:
    if row[column] is None:
        return {column: None}
    array = np.asarray(row[column], dtype=kind)
    if array.dtype.kind in "iu" and kind != "uint16" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)  # lists of numbers are int64
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return {column: {"bytes": buffer.getvalue(), "path": None}}
