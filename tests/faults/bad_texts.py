"""Texts without content, of strange characters and of great length; splits without rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from .bad_case import Corpus, Given
from .bad_samples import ROWS, csv, label, memory, splits, text, texts, write

CORPUS = Corpus("texts")
SPLITS = Corpus("splits")
_TWO = "2 classes: neg, pos"
_NAMES = ["neg", "pos"] * (ROWS // 2)
_WORDS = "w3 w4 w5 w6 "


def _add(name: str, *bad: Any, data: dict[str, Any] | None = None, **expected: Any) -> None:
    CORPUS.add(name, lambda folder: texts(bad, **(data or {})), **expected)


_add(
    "texts of spaces",
    " ",
    "\t\n\r",
    "\u3000\u00a0",
    refused="3 of 27 rows.*row 24: the text is empty.*row 26: the text is empty",
)
_add("texts that are None", None, refused="row 24: the text is missing")
_add("empty texts skipped", "", None, data={"on_error": "skip"}, skipped=2, says="2 broken rows left out")
_add("texts of control characters", "\x01\x02\x07", "\x1b", refused="2 of 26 rows.*empty but for control characters")
_add(
    "texts of marks without width", "\u200b\u200d\ufeff", "\u202e\u2066", refused="2 of 26 rows.*empty but for control"
)
_add("texts with control characters", "w3 \x07 w4", "\x1b[2J w5", "w6\x00w7", data={"test_split": 0.25}, says=_TWO)
_add(
    "texts from right to left",
    "\u05e9\u05dc\u05d5\u05dd w3",
    "\u0645\u0631\u062d\u0628\u0627",
    "\u202ew3 w4\u202c",
    data={"test_split": 0.25},
    says=_TWO,
)
_add(
    "texts of emoji",
    "\U0001f600",
    "\U0001f469\u200d\U0001f52c",
    "\U0001f1e8\U0001f1ed",
    data={"test_split": 0.25},
    says=_TWO,
)
_add("texts of private characters", "\ue000\ue001", "\U000f0000", data={"test_split": 0.25}, says=_TWO)
_add("texts of stacked accents", "a" + "\u0301" * 5000, data={"test_split": 0.25}, says=_TWO)
_add("texts of unknown words", "xyzzy", "\u4f60\u597d\u4e16\u754c", "...", says=_TWO)
_add("texts called None and NaN", "None", "nan", "NULL", "NA", "null", data={"test_split": 0.25}, says=_TWO)
_add("texts with a BOM", "\ufeffw3 w4", says=_TWO)
_add(
    "texts of HTML",
    "<script>alert(1)</script>",
    "</textarea><img src=x onerror=alert(1)>",
    data={"test_split": 0.25},
    says=_TWO,
)
_add("texts of a thousand lines", "w3\n" * 1000, data={"test_split": 0.25}, says=_TWO)
_add("texts of one word", "w3", "w4", "w5", says=_TWO)
_add("texts twice with two labels", "w9 w9", "w9 w9", says=_TWO)
_add("one row of many broken", *[""] * 500, refused="500 of 524 rows.*and 490 more")


@CORPUS(refused="All rows|No row|524 of|24 of 24 rows cannot be used")
def _every_text_empty(folder: Path) -> Given:
    return memory(_NAMES, [""] * ROWS)


@CORPUS(refused="No row of the .* split can be used; the first: the text is empty")
def _every_text_empty_and_skipped(folder: Path) -> Given:
    return memory(_NAMES, [""] * ROWS, on_error="skip")


@CORPUS(says=_TWO)
def _the_same_text_in_every_row(folder: Path) -> Given:
    return memory(_NAMES, ["w3 w4"] * ROWS)


@CORPUS(refused="Which column is the text|does not hold text")
def _numbers_for_texts(folder: Path) -> Given:
    return memory(_NAMES, list(range(ROWS)))


@CORPUS(refused="data.text=text: the column does not hold text")
def _numbers_for_texts_by_name(folder: Path) -> Given:
    return memory(_NAMES, list(range(ROWS)), text="text")


@CORPUS(refused="row 3: the text is missing")
def _pairs_with_one_half(folder: Path) -> Given:
    second = [text(100 + n) if n != 3 else None for n in range(ROWS)]
    rows = {"a": [text(n) for n in range(ROWS)], "b": second, "label": _NAMES}
    return {"source": Dataset.from_dict(rows), "test_split": None, "text": "a", "text_pair": "b"}


@CORPUS(refused="2 columns could be .a, b.*data.text_pair=COLUMN")
def _two_texts_and_no_word_which(folder: Path) -> Given:
    rows = {"a": [text(n) for n in range(ROWS)], "b": [text(n + 50) for n in range(ROWS)], "label": _NAMES}
    return {"source": Dataset.from_dict(rows), "test_split": None}


@CORPUS(says=_TWO, heavy=True)
def _texts_of_1_MB(folder: Path) -> Given:
    return texts([_WORDS * 2**20, *[_WORDS * (2**20 // 12)] * 40], test_split=0.25)


@CORPUS(says=_TWO, heavy=True)
def _words_of_1_MB(folder: Path) -> Given:
    return texts(["x" * 2**20, "\u4f60" * 2**20, "w3" * 2**19], test_split=0.25)


@CORPUS(refused="1,000 windows of 32 tokens at most, and there are more in row 2[4-7] .1", heavy=True)
def _texts_of_1_MB_in_windows(folder: Path) -> Given:
    return texts([_WORDS * (2**20 // 12)] * 4, long_text="windows", max_length=32, test_split=0.25)


@CORPUS(says=_TWO, heavy=True)
def _pairs_of_1_MB(folder: Path) -> Given:
    long = [text(n) if n % 6 else _WORDS * (2**20 // 12) for n in range(ROWS)]
    rows = {"a": long, "b": long[::-1], "label": _NAMES}
    return {"source": Dataset.from_dict(rows), "test_split": None, "text": "a", "text_pair": "b"}


@SPLITS(refused="data.train_split=train: the split has no rows|split has no rows")
def _train_without_rows(folder: Path) -> Given:
    return {"source": Dataset.from_dict({"text": [], "label": []}), "test_split": None}


def _add_splits(
    name: str, data: dict[str, Any], refused: str | None = None, says: str | None = None, **parts: Any
) -> None:
    SPLITS.add(name, lambda folder: {"source": splits(**parts), **data}, refused=refused, says=says)


_add_splits("a test split without rows", {}, "data.test_split=test: the split has no rows", train=_NAMES, test=[])
_add_splits(
    "a validation split without rows",
    {"test_split": None, "validation": "validation"},
    "data.validation=validation: the split has no rows",
    train=_NAMES,
    validation=[],
)
_add_splits("no split of that name", {"test_split": "tset"}, "Did you mean 'test'", train=_NAMES, test=_NAMES)
_add_splits("one row", {"test_split": None}, "Two classes|1 row", train=["pos"])
_add_splits("two rows", {"test_split": None}, "Every class has a single row", train=["pos", "neg"])
_add_splits("three rows", {"test_split": None}, says=_TWO, train=["pos", "neg", "pos"])
_add_splits("too few rows for a test share", {"test_split": 0.5}, "Every class has a single row", train=["pos", "neg"])
_add_splits("a test split of one row", {}, says=_TWO, train=_NAMES, test=["pos"])
_add_splits("a test split of one class", {}, says=_TWO, train=_NAMES, test=["pos"] * 8)
_add_splits("train and test the same split", {"test_split": "train"}, says="exact copies", train=_NAMES)
_add_splits("one training row wanted", {"test_split": None, "max_train_samples": 1}, "single row|1 row", train=_NAMES)


@SPLITS(refused="split test has no column 'label'. Its columns are: text")
def _a_test_split_without_the_label_column(folder: Path) -> Given:
    train, test = splits(train=_NAMES, test=_NAMES).values()
    return {"source": DatasetDict(train=train, test=test.remove_columns("label"))}


@SPLITS(refused="No row of the test split can be used")
def _a_test_split_of_broken_rows(folder: Path) -> Given:
    train = splits(train=_NAMES)["train"]
    return {"source": DatasetDict(train=train, test=Dataset.from_dict({"text": ["", " "], "label": ["pos", "neg"]})),
            "on_error": "skip"}  # fmt: skip


@SPLITS(says="24 of 24 test rows are exact copies")
def _a_test_split_that_is_a_copy(folder: Path) -> Given:
    train = splits(train=_NAMES)["train"]
    return {"source": DatasetDict(train=train, test=train), "validation": 0.2}


@SPLITS(refused="data.test_split=test: there is no such split|no split")
def _no_test_split(folder: Path) -> Given:
    return write(folder, csv()) | {"test_split": "test"}


@SPLITS(refused="b.csv: there is no such file. Did you mean 'a.csv'")
def _a_split_whose_file_is_missing(folder: Path) -> Given:
    write(folder, csv())
    return {"dataset": {"train": str(folder / "a.csv"), "test": str(folder / "b.csv")}}


@SPLITS(refused=r"list was given|takes a datasets.Dataset")
def _a_list_in_place_of_a_data_set(folder: Path) -> Given:
    return {"source": [{"text": text(n), "label": label(n)} for n in range(ROWS)]}
