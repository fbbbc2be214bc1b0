"""Labels that cannot be learnt, or not as they stand."""

from __future__ import annotations

import datetime
import decimal
import math
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from .bad_case import Corpus, Given
from .bad_samples import ROWS, memory, splits, text

CORPUS = Corpus("labels")
_TWO = "2 classes: neg, pos"
_NAMES = ["neg", "pos"] * (ROWS // 2)


def _add(
    name: str, labels: list[Any], feature: Any = None, data: dict[str, Any] | None = None, **expected: Any
) -> None:
    features = Features({"text": Value("string"), "label": feature}) if feature is not None else None
    CORPUS.add(name, lambda folder: memory(labels, features=features, **(data or {})), **expected)


def _apart(name: str, train: list[Any], other: list[Any], role: str = "test", **expected: Any) -> None:
    def make(folder: Path) -> Given:
        chosen = {"test_split": "test"} if role == "test" else {"test_split": None, "validation": "validation"}
        return {"source": splits(**{"train": train, role: other}), **chosen}

    CORPUS.add(name, make, **expected)


_apart(
    "a class of test alone",
    _NAMES,
    ["neg", "pos", "new", "new"],
    refused=r"split test has labels that the train split has not: 'new' \(2 rows\). The first is in row 2",
)
_apart(
    "a class of validation alone", _NAMES, ["neg", "new"], "validation", refused="split validation has labels.*'new'"
)
_apart("a thousand classes of test alone", _NAMES, [f"c{n}" for n in range(1000)], refused=r"\.\.\. \(1,000 labels\)")
_apart("a test split without labels", _NAMES, [None] * 4, refused="split test has no labels: all 4 rows")
_apart("a test split of -1", [0, 1] * 12, [-1] * 4, refused="split test has labels that the train split has not: '-1'")
_apart(
    "a test split with one label missing",
    _NAMES,
    ["neg", None],
    refused="1 of 26 rows.*test row 1: the label is missing",
)
_apart("numbers in train and names in test", [0, 1] * 12, ["neg", "pos"], refused="'neg' .1 rows., 'pos'")
_apart("numbers as text in test", [0, 1] * 12, ["0", "1"], says="2 classes: 0, 1")
_apart(
    "spaces in test alone", _NAMES, ["neg ", " pos"], says=f"2 labels in the column 'label' have white space.*{_TWO}"
)
_apart("a class of validation misspelt", _NAMES, ["Neg", "pos"], "validation", refused="'Neg' .1 rows.")

_add("one class", ["pos"] * ROWS, refused="All rows of the train split have the label 'pos'.*Two classes or more")
_add("one class and gaps", ["pos", None] * 12, refused="All rows of the train split have the label 'pos'")
_add("one row a class", [f"c{n}" for n in range(ROWS)], refused="Every class has a single row")
_add("one row a class, and many", [f"c{n}" for n in range(80)], refused="80 different values in 80 rows")
_add("no label at all", [None] * ROWS, refused="is empty in all 24 rows")
_add("labels of spaces", ["  ", "\t"] * 12, refused="is empty in all 24 rows")
_add("empty labels", [*_NAMES, "", "  "], refused="2 of 26 rows.*row 24: the label is missing.*row 25")
_add(
    "labels missing",
    [*_NAMES, None],
    data={"test_split": 0.25, "on_error": "skip"},
    skipped=1,
    says="1 broken rows left out",
)
_add(
    "-1 of a class label",
    [*([0, 1] * 12), -1],
    ClassLabel(names=["neg", "pos"]),
    refused="row 24: the label is missing",
)
_add("-1 among numbers", [*([0, 1] * 12), -1, -1], says="-1 is learnt as a class of its own")
_add("a number beyond the class names", [*([0, 1] * 12), 2], Value("int64"), says="3 classes: 0, 1, 2")
_add(
    "spaces around labels",
    ["neg", "pos "] * 11 + ["neg\n", "pos"],
    data={"test_split": 0.25},
    says=f"have white space around them.*{_TWO}",
)
_add("labels in two cases", [*_NAMES, "Pos", "Pos"], says="learnt apart: 'Pos' and 'pos'")
_add("accents in two encodings", ["caf\xe9", "cafe\u0301"] * 12, says="encoding of accents alone are learnt apart")
_add("booleans", [True, False] * 12, says="2 classes: false, true")
_add("booleans with gaps", [*([True, False] * 12), None], refused="row 24: the label is missing")
_add("whole floats", [0.0, 1.0] * 12, says="regression.*all of their 2 values are whole")
_add(
    "whole floats as classes",
    [0.0, 1.0] * 12,
    data={"problem_type": "single_label_classification"},
    says="2 classes: 0, 1",
)
_add("fractions as classes", [0.5, 1.0] * 12, data={"problem_type": "single_label_classification"}, refused="holds 0.5")
_add("NaN among numbers", [*map(float, range(ROWS)), math.nan], refused="row 24: the label is missing")
_add(
    "infinity among numbers",
    [*map(float, range(ROWS)), math.inf, -math.inf],
    refused="row 24: the label is inf.*row 25",
)
_add(
    "a number beyond float32", [*map(float, range(ROWS)), 1e300], refused=r"row 24: the label is 1e\+300: numbers up to"
)
_add("large numbers", [1e16 * n for n in range(ROWS)], says="regression")
_add("tiny numbers", [1e-30 * n for n in range(ROWS)], says="regression")
_add("one number", [3.0] * ROWS, refused="same label, 3.0 .*nothing to learn")
_add(
    "words for numbers", ["1.5", "many"] * 12, data={"problem_type": "regression"}, refused="holds 'many', not a number"
)
_add(
    "numbers with commas", ["1,5", "2,5"] * 12, data={"problem_type": "regression"}, refused="holds '1,5', not a number"
)
_add("decimals", [decimal.Decimal(n) / 8 for n in range(ROWS)], data={"test_split": 0.25}, says="regression")
_add("dates", [datetime.date(2020, 1, 1 + n) for n in range(ROWS)], refused="labels are classes .text, whole numbers")
_add("bytes", [b"neg", b"pos"] * 12, refused="Which column is the label|labels are classes")
_add("records", [{"name": "neg"}] * ROWS, refused="Which column is the label|holds record")
_add("lists of lists", [[["neg"]]] * ROWS, refused="Which column is the label|holds list of list")
_add(
    "lists",
    [["a"], ["a", "b"], [], ["b"]] * 6,
    data={"test_split": 0.25},
    says="multi label classification, 2 classes: a, b",
)
_add("lists with gaps", [*([["a"], ["b"]] * 12), ["a", None]], refused="row 24: a label in the list is missing")
_add(
    "empty lists",
    [[]] * ROWS,
    Features({"x": List(Value("string"))})["x"],
    refused="there is no class to learn|same label",
)
_add("equal lists", [["a", "b"]] * ROWS, refused="same label, .'a', 'b'.")
_add("lists of numbers of several lengths", [[0.5], [0.5, 1.5]] * 12, refused="have 1 to 2 values")
_add(
    "lists of classes with -1",
    [[0], [1, -1]] * 12,
    List(ClassLabel(names=["a", "b"])),
    refused="row 1: a label in the list",
)
_add("huge whole numbers", [2**63 - 1, -(2**63)] * 12, says="2 classes")
_add(
    "labels that are texts",
    [text(n) * 60 for n in range(4)] * 6,
    refused="holds a text of .* If another column is the label",
)
_add(
    "labels of HTML",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'] * 12,
    data={"test_split": 0.25},
    says="2 classes",
)
_add("labels with line breaks", ["a\nb", "c\td"] * 12, data={"test_split": 0.25}, says="2 classes")
_add(
    "labels from right to left",
    ["\u05e9\u05dc\u05d5\u05dd", "\u202eolleh"] * 12,
    data={"test_split": 0.25},
    says="2 classes",
)
_add(
    "labels of emoji",
    ["\U0001f469\u200d\U0001f52c", "\U0001f44d\U0001f3fd"] * 12,
    data={"test_split": 0.25},
    says="2 classes",
)
_add("labels called like paths", ["../../etc/passwd", "a/b\\c:d"] * 12, data={"test_split": 0.25}, says="2 classes")
_add(
    "labels called like YAML",
    ["null", "true", "1e3", "~", "- a", "{a: b}"] * 4,
    data={"test_split": 0.25},
    says="6 classes",
)


@CORPUS(refused="holds 7 .row 24, counted from 0., and its type names 2 classes, 0 to 1")
def _a_number_without_a_class_name(folder: Path) -> Given:
    return _unchecked([*([0, 1] * 12), 7])


def _unchecked(numbers: list[int]) -> Given:
    """Numbers as other programs may store them beside names of classes: `datasets` does not look."""
    import pyarrow as pa
    from datasets.table import InMemoryTable

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    table = pa.table({"text": [text(n) for n in range(len(numbers))], "label": numbers}, schema=features.arrow_schema)
    return {"source": Dataset(InMemoryTable(table)), "test_split": None}


@CORPUS(says=_TWO)
def _class_names_in_another_order_in_test(folder: Path) -> Given:
    parts = {}
    for name, order in (("train", ["neg", "pos"]), ("test", ["pos", "neg"])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=order)})
        rows = {"text": [f"{text(n)} {name}" for n in range(12)], "label": [0, 1] * 6}
        parts[name] = Dataset.from_dict(rows, features=features)
    return {"source": DatasetDict(parts), "test_split": "test"}


@CORPUS(says="1 of 3 classes have no training row: rare", skipped=2)
def _a_class_whose_rows_are_all_broken(folder: Path) -> Given:
    labels, texts = [*_NAMES, "rare", "rare"], [*map(text, range(ROWS)), "", " "]
    return memory(labels, texts, on_error="skip")


@CORPUS(refused="multi_label_classification needs a list of classes in each row")
def _classes_where_lists_are_asked_for(folder: Path) -> Given:
    return memory(_NAMES, problem_type="multi_label_classification")


@CORPUS(refused="single_label_classification needs one class in each row")
def _lists_where_classes_are_asked_for(folder: Path) -> Given:
    return memory([["a"], ["b"]] * 12, problem_type="single_label_classification")


@CORPUS(says="10,?000 classes", extra=("training.per_device_eval_batch_size=256",), heavy=True)
def _ten_thousand_classes(folder: Path) -> Given:
    return memory([f"class {n % 10_000}" for n in range(30_000)], test_split=0.1)


@CORPUS(refused="10,000 different values in 10,000 rows", heavy=True)
def _ten_thousand_classes_of_one_row(folder: Path) -> Given:
    return memory([f"class {n}" for n in range(10_000)])


@CORPUS(refused="holds a text of 1,048,57", heavy=True)
def _labels_of_1_MB(folder: Path) -> Given:
    return memory(["w3" * 2**19, "w4" * 2**19] * 12)
