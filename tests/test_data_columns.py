"""Columns are found from the features; what is ambiguous is asked."""

import pytest
from data_samples import make_recipe, photo
from datasets import ClassLabel, Dataset, Features, Value

from hf_finetune.data.columns import Columns, find_columns
from hf_finetune.errors import DataError


def table(columns, classes=()):
    features = {
        name: ClassLabel(names=["x", "y"]) if name in classes else Dataset.from_dict({name: values}).features[name]
        for name, values in columns.items()
    }
    return Dataset.from_dict(columns, features=Features(features))


def found(columns, task="text-classification", classes=(), **data):
    return find_columns(table(columns, classes), task, make_recipe("memory", task, **data).data)


@pytest.mark.parametrize(
    ("columns", "classes", "data", "expected"),
    [
        ({"idx": [1], "sentence": ["a"], "label": [0]}, ("label",), {}, Columns("label", text="sentence")),
        ({"id": ["a"], "text": ["a"], "rating": [0.5]}, (), {}, Columns("rating", text="text")),
        ({"review": ["a"], "labels": ["b"]}, (), {}, Columns("labels", text="review")),
        ({"text": ["a"], "user_id": ["u"], "kind": [1]}, ("kind",), {}, Columns("kind", text="text")),
        ({"text": ["a"], "tags": [["b", "c"]]}, (), {}, Columns("tags", text="text")),
        ({"review": ["a"], "mood": ["b"]}, (), {"text": "review"}, Columns("mood", text="review")),
        ({"review": ["a"], "mood": ["b"]}, (), {"label": "mood"}, Columns("mood", text="review")),
        (
            {"a": ["a"], "b": ["b"], "score": [0.5]},
            (),
            {"text": "a", "text_pair": "b"},
            Columns("score", text="a", text_pair="b"),
        ),
    ],
)
def test_text_columns(columns, classes, data, expected):
    assert found(columns, classes=classes, **data) == expected


@pytest.mark.parametrize(
    ("columns", "classes", "data", "expected"),
    [
        ({"img": [photo()], "label": [0], "note": ["a"]}, (), {}, Columns("label", image="img")),
        ({"image": [photo()], "count": [3.0]}, (), {}, Columns("count", image="image")),
        ({"file": ["a.JPG"], "breed": ["b"]}, (), {}, Columns("breed", image="file")),
        ({"file": ["no suffix"], "breed": [1]}, (), {"image": "file"}, Columns("breed", image="file")),
        ({"data": [b"x"], "breed": [1]}, (), {}, Columns("breed", image="data")),
        (
            {"img": [photo()], "fine": [0], "coarse": [1]},
            ("fine", "coarse"),
            {"label": "fine"},
            Columns("fine", image="img"),
        ),
    ],
)
def test_image_columns(columns, classes, data, expected):
    assert found(columns, "image-classification", classes, **data) == expected


@pytest.mark.parametrize(
    ("columns", "task", "data", "message"),
    [
        (
            {"s1": ["a"], "s2": ["b"], "label": [0]},
            "text",
            {},
            "text.*s1, s2.*data.text=COLUMN.*data.text_pair=COLUMN.*s1: text",
        ),
        (
            {"left": [photo()], "right": [photo()], "label": [0]},
            "image",
            {},
            "2 columns could be .left, right.*data.image=",
        ),
        ({"n": [1], "label": [0]}, "text", {}, "No column looks like one.*label: int64"),
        ({"n": [1], "label": [0]}, "image", {}, "image.*No column looks like one"),
        ({"text": ["a"], "x": [1], "y": [2.5]}, "text", {}, "label.*x, y.*data.label=COLUMN.*y: float64"),
        ({"text": ["a"], "label": [0], "labels": [1]}, "text", {}, "label.*label, labels"),
        ({"text": ["a"], "label": [0]}, "text", {"text": "txet"}, "data.text=txet.*Did you mean 'text'"),
        ({"text": ["a"], "label": [0]}, "text", {"text": "label", "label": "text"}, "does not hold text"),
        ({"n": [1], "label": [0]}, "image", {"image": "n"}, "does not hold images"),
    ],
)
def test_ambiguities_list_the_columns(columns, task, data, message):
    with pytest.raises(DataError, match=f"(?s){message}.*The columns are|(?s:{message})"):
        found(columns, f"{task}-classification", **data)


def test_types_are_said_in_words():
    features = Features({"text": Value("string"), "a": ClassLabel(names=["x", "y"]), "b": ClassLabel(names=["z"])})
    split = Dataset.from_dict({"text": ["t"], "a": [0], "b": [0]}, features=features)
    with pytest.raises(DataError) as error:
        find_columns(split, "text-classification", make_recipe("memory").data)
    assert "  text: text\n  a: 2 classes\n  b: 1 classes" in str(error.value)
