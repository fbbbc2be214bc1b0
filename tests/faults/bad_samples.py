"""Good rows, into which the corpus puts bad ones."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image

ROWS = 24


def text(number: int) -> str:
    """A text of its own for every number, in words that the tiny tokenizer knows."""
    return f"w{3 + number % 40} w{3 + 7 * number % 41} w{4 + number // 40} w{5 + number % 9}"


def label(number: int) -> str:
    """Two classes in turn."""
    return "neg" if number % 2 else "pos"


def lines(count: int = ROWS, first: int = 0, separator: str = ",") -> list[str]:
    """Lines of a table, without its header."""
    return [f"{text(number)}{separator}{label(number)}" for number in range(first, first + count)]


def csv(header: str = "text,label", bad: Iterable[str] = (), end: str = "\n", separator: str = ",") -> str:
    """A table with bad lines after good ones."""
    return end.join([header, *lines(separator=separator), *bad, *lines(4, 100, separator)]) + end


def write(folder: Path, content: str | bytes, name: str = "a.csv", encoding: str = "utf-8") -> dict[str, Any]:
    """A file as the data section names it; without a test split."""
    path = folder / name
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return {"dataset": str(path), "test_split": None}


def memory(
    labels: Sequence[Any], texts: Sequence[Any] | None = None, features: Any = None, **data: Any
) -> dict[str, Any]:
    """A data set of texts in memory, as one split."""
    texts = [text(number) for number in range(len(labels))] if texts is None else texts
    source = Dataset.from_dict({"text": list(texts), "label": list(labels)}, features=features)
    return {"source": source, "test_split": None, **data}


def texts(bad: Sequence[Any], **data: Any) -> dict[str, Any]:
    """Good texts in memory and bad ones among them."""
    values = [*map(text, range(ROWS)), *bad]
    return memory([label(number) for number in range(len(values))], values, **data)


def splits(**parts: Sequence[Any]) -> DatasetDict:
    """Splits in memory by their labels."""
    found = {}
    for place, (name, labels) in enumerate(parts.items()):
        rows = [text(1000 * place + number) for number in range(len(labels))]
        found[name] = Dataset.from_dict({"text": rows, "label": list(labels)})
    return DatasetDict(found)


def picture(number: int = 0, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A smooth coloured picture, another one for every number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def class_folders(folder: Path, names: Sequence[str] = ("ants", "bees"), each: int = 8) -> Path:
    """Good images in class folders."""
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            picture(100 * place + number).save(folder / name / f"{number}.png")
    return folder


def with_image(folder: Path, content: bytes, name: str = "odd.png", **data: Any) -> dict[str, Any]:
    """Class folders with one file more."""
    class_folders(folder)
    (folder / "ants" / name).write_bytes(content)
    return {"dataset": str(folder), "test_split": None, **data}
