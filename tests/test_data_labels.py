"""Labels of every kind become classes, sets of classes or numbers."""

import math

import pytest
from data_samples import make_recipe, private_cache  # noqa: F401
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_finetune.data import load_data, load_test
from hf_finetune.data.label_columns import encode_labels, find_label_space, read_labels
from hf_finetune.data.labels import LabelSpace
from hf_finetune.errors import DataError


def read(values, feature=None, requested=None):
    columns = {"label": values}
    split = Dataset.from_dict(columns, features=Features({"label": feature}) if feature is not None else None)
    raw = read_labels(split, "label")
    space = find_label_space(raw, "label", requested)
    return space, encode_labels(raw, space)


@pytest.mark.parametrize(
    ("values", "feature", "names", "targets"),
    [
        (["b", "a", "b"], None, ("a", "b"), [1, 0, 1]),
        ([10, 2, 10, -1], None, ("-1", "2", "10"), [2, 1, 2, 0]),
        ([True, False, True], None, ("false", "true"), [1, 0, 1]),
        ([1, 0, 1], ClassLabel(names=["no", "maybe", "yes"]), ("no", "maybe", "yes"), [1, 0, 1]),
        (["10", "9", "x"], None, ("9", "10", "x"), [1, 0, 2]),
    ],
)
def test_classes(values, feature, names, targets):
    space, (encoded, reasons, unknown) = read(values, feature)
    assert space == LabelSpace("single_label_classification", names)
    assert (encoded, reasons, unknown) == (targets, {}, {})
    assert [space.decode(target) for target in encoded] == [names[target] for target in targets]


def test_floats_are_regression():
    space, (encoded, _, _) = read([0.5, 2.0, -1.0])
    assert space == LabelSpace("regression", ("label",))
    assert encoded == [0.5, 2.0, -1.0]


@pytest.mark.parametrize(
    ("values", "feature", "names", "targets"),
    [
        ([["b", "a"], ["c"], []], None, ("a", "b", "c"), [[1, 1, 0], [0, 0, 1], [0, 0, 0]]),
        ([[3, 10], [3]], None, ("3", "10"), [[1, 1], [1, 0]]),
        ([[0, 1], [1]], List(ClassLabel(names=["x", "y", "z"])), ("x", "y", "z"), [[1, 1, 0], [0, 1, 0]]),
        ([[0, 1, 1], [1, 0, 0]], None, ("0", "1", "2"), [[0, 1, 1], [1, 0, 0]]),
        ([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], None, ("0", "1", "2"), [[0, 1, 1], [0, 0, 0]]),
        ([[True, False, False]], None, ("0", "1", "2"), [[1, 0, 0]]),
    ],
)
def test_lists_are_multi_label(values, feature, names, targets):
    space, (encoded, reasons, _) = read(values, feature)
    assert space == LabelSpace("multi_label_classification", names)
    assert encoded == targets and not reasons
    assert space.decode(encoded[0]) == [name for name, hot in zip(names, targets[0], strict=True) if hot]


def test_two_labels_are_multi_hot_on_every_split_or_on_none():
    """[0, 1] is the second of two labels; read split by split it was both, wherever no row repeated a value."""
    rows = [[0, 1], [1, 0], [1, 1], [0, 0]] * 3
    data = {"train": rows, "test": [[0, 1], [1, 0], [1, 0]]}
    data = {
        name: Dataset.from_dict({"text": [f"{name} {n}" for n in range(len(v))], "label": v})
        for name, v in data.items()
    }
    task = load_data(make_recipe("memory"), DatasetDict(data))
    assert task.test["label"][:] == [[0, 1], [1, 0], [1, 0]]
    test, _ = load_test(make_recipe("memory"), LabelSpace("multi_label_classification", ("0", "1")), data["test"])
    assert test["label"][:] == [[0, 1], [1, 0], [1, 0]]
    space, (targets, _, _) = read([[0, 1], [1, 0]])
    assert targets == [[0, 1], [1, 0]] and space.multi_hot
    space, (targets, _, _) = read([[0, 1], [1]])
    assert targets == [[1, 1], [0, 1]] and not space.multi_hot


def test_a_gap_in_a_multi_hot_row_is_a_broken_row_and_a_wrong_one_is_said():
    space, (targets, reasons, _) = read([[0, 1, 1], [1, None, 0], [0, 0, 0]])
    assert (
        space.num_labels == 3
        and targets == [[0, 1, 1], None, [0, 0, 0]]
        and reasons == {1: "a label in the list is missing"}
    )
    for wrong in ([0, 1], [0, 2, 1]):
        with pytest.raises(ValueError, match="0 or 1 for each label"):
            space.encode(wrong)


def test_multi_hot_lists_are_numbers_where_regression_is_asked_for():
    space, (targets, _, _) = read([[0, 1], [1, 1]], requested="regression")
    assert space.problem_type == "regression" and targets == [[0, 1], [1, 1]]


def test_lists_of_floats_are_several_targets():
    space, (encoded, _, _) = read([[0.5, 2.0], [1.5, 3.0]])
    assert space == LabelSpace("regression", ("label_0", "label_1"))
    assert encoded == [[0.5, 2.0], [1.5, 3.0]]


@pytest.mark.parametrize(
    ("values", "requested", "expected"),
    [
        ([1, 2, 5], "regression", [1.0, 2.0, 5.0]),
        (["1.5", "2", "5"], "regression", [1.5, 2.0, 5.0]),
        ([True, False], "regression", [1.0, 0.0]),
        ([1.0, 3.0, 1.0], "single_label_classification", [0, 1, 0]),
    ],
)
def test_the_problem_type_asked_for_wins(values, requested, expected):
    space, (encoded, _, _) = read(values, requested=requested)
    assert space.problem_type == requested
    assert encoded == expected


@pytest.mark.parametrize(
    ("values", "requested", "message"),
    [
        (["good", "bad"], "regression", "'good', not a number"),
        (["a", "b"], "multi_label_classification", "a list of classes in each row"),
        ([["a"], ["b"]], "single_label_classification", "one class in each row"),
        ([1.5, 2.0], "single_label_classification", "1.5, which is not a class"),
        ([[1.0, 2.0], [1.0]], None, "have 1 to 2 values"),
        (["a", "a"], None, "'a'.*Two classes"),
        ([None, None], None, "empty in all 2 rows"),
        ([[], []], "multi_label_classification", "no class to learn|empty"),
        ([{"x": 1}, {"x": 2}], None, "holds record"),
        (list(range(100)), None, "100 different values in 100 rows.*problem_type=regression"),
    ],
)
def test_labels_that_cannot_be_meant(values, requested, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        read(values, requested=requested)


@pytest.mark.parametrize(
    ("values", "feature", "broken"),
    [
        (["a", None, "b", "", "  "], None, [1, 3, 4]),
        ([0, 1, -1, None], ClassLabel(names=["x", "y"]), [2, 3]),
        ([0.5, math.nan, None, math.inf], None, [1, 2, 3]),
        ([["a"], None, ["b", None]], None, [1, 2]),
        ([[0.5, 1.5], [0.5, math.nan]], None, [1]),
        ([3, None, 4], None, [1]),
    ],
)
def test_missing_labels_are_broken_rows(values, feature, broken):
    _, (targets, reasons, unknown) = read(values, feature)
    assert sorted(reasons) == broken and not unknown
    assert [row for row, target in enumerate(targets) if target is None] == broken


scalars = st.one_of(
    st.lists(st.sampled_from(["a", "B", "zz", "10", "9"]), min_size=2, max_size=30),
    st.lists(st.integers(-5, 5), min_size=2, max_size=30),
    st.lists(st.booleans(), min_size=2, max_size=30),
).filter(lambda values: len(set(values)) > 1)


@settings(max_examples=50, deadline=None)
@given(values=scalars)
def test_every_class_comes_back_and_order_does_not_matter(values):
    space, (targets, reasons, unknown) = read(values)
    assert not reasons and not unknown
    assert len(set(space.names)) == space.num_labels == len(set(values))
    names = {"True": "true", "False": "false"}
    assert [space.decode(target) for target in targets] == [names.get(str(value), str(value)) for value in values]
    assert read(values[::-1])[0] == space


def test_a_label_only_in_test_is_named():
    train = Dataset.from_dict({"text": list("abcdef"), "label": ["x", "y"] * 3})
    test = Dataset.from_dict({"text": ["g", "h"], "label": ["x", "new"]})
    with pytest.raises(DataError, match=r"split test has labels that the train split has not: 'new' \(1 rows\)"):
        load_data(make_recipe("memory"), DatasetDict(train=train, test=test))


def test_a_test_split_without_labels_is_refused_as_a_whole():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y"])})
    train = Dataset.from_dict({"text": list("abcdef"), "label": [0, 1] * 3}, features=features)
    test = Dataset.from_dict({"text": ["g", "h"], "label": [-1, -1]}, features=features)
    with pytest.raises(DataError, match="split test has no labels: all 2 rows"):
        load_data(make_recipe("memory"), DatasetDict(train=train, test=test))


def test_class_labels_are_matched_by_name_between_splits():
    def split(names, labels):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        return Dataset.from_dict(
            {"text": [f"{names} {n}" for n in range(len(labels))], "label": labels}, features=features
        )

    data = DatasetDict(train=split(["x", "y"], [0, 1] * 4), test=split(["y", "x"], [0, 1]))
    task = load_data(make_recipe("memory"), data)
    assert task.test["label"][:] == [1, 0]
