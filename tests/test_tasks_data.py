"""Label columns of several tasks: packed, split, missing, wrong; and data sets mixed by weight."""

from collections import Counter

import numpy as np
import pytest
from data_samples import make_recipe, private_cache  # noqa: F401
from datasets import Dataset, DatasetDict

from hf_finetune.data import load_data, load_test
from hf_finetune.data.task_labels import labels_of_model
from hf_finetune.errors import DataError, UserError
from hf_finetune.training.mixed_sources import SourceSampler

TWO = {"kind": {"label": "kind"}, "size": {"label": "size"}}


def recipe(tasks=TWO, **data):
    made = make_recipe("memory:", text="text", **data)
    return made.model_validate({**made.written(), "tasks": tasks})


def table(count=20, **columns):
    rows = {
        "text": [f"text {row}" for row in range(count)],
        "kind": ["ab"[row % 2] for row in range(count)],
        "size": [float(row) for row in range(count)],
        "tags": [[["x"], ["y"], ["x", "y"]][row % 3] for row in range(count)],
    }
    return Dataset.from_dict({**rows, **columns})


def test_every_kind_of_label_has_its_place_in_a_row():
    task = load_data(recipe({**TWO, "tags": {"label": "tags"}}), table())
    kind, size, tags = task.labels.tasks
    assert [part.space.problem_type for part in task.labels.tasks] == [
        "single_label_classification", "regression", "multi_label_classification",
    ]  # fmt: skip
    assert task.labels.names == ("kind: a", "kind: b", "size: size", "tags: x", "tags: y")
    assert (tags.columns, tags.outputs) == (slice(2, 4), slice(3, 5))
    for row, packed in zip(task.train["id"][:], task.train["label"][:], strict=True):
        assert (kind.target(packed), size.target(packed)) == (row % 2, float(row))
        assert tags.space.decode(tags.target(packed)) == [["x"], ["y"], ["x", "y"]][row % 3]
    assert [part.space for part in labels_of_model(task.labels.for_the_model()).tasks] == [
        part.space for part in task.labels.tasks
    ]


def test_the_split_is_that_of_a_run_with_the_first_classes_alone():
    alone = load_data(make_recipe("memory:", text="text", label="kind"), table().remove_columns(["tags"]))
    several = load_data(recipe({"size": TWO["size"], "kind": TWO["kind"]}), table())
    for role in ("train", "validation", "test"):
        assert getattr(several, role)["id"][:] == getattr(alone, role)["id"][:]


def test_a_missing_label_counts_for_no_task_and_a_row_without_any_is_named():
    kinds = [None if row in (3, 5) else "ab"[row % 2] for row in range(20)]
    sizes = [float("nan") if row in (4, 5) else float(row) for row in range(20)]
    data = table(kind=kinds, size=sizes)
    with pytest.raises(DataError, match=r"1 of 20 rows(.|\n)*row 5: it has no label of any task"):
        load_data(recipe(), data)
    task = load_data(recipe(on_error="skip"), data)
    packed = {row: label for split in (task.train, task.validation, task.test)
              for row, label in zip(split["id"][:], split["label"][:], strict=True)}  # fmt: skip
    assert sorted(packed) == [row for row in range(20) if row != 5]
    assert np.isnan(packed[3][0])
    assert packed[3][1] == 3.0
    assert packed[4][0] == 0
    assert np.isnan(packed[4][1])
    assert task.skipped[0]["row"] == 5


def test_a_label_that_is_no_label_is_named_with_its_task():
    wrong = recipe({"kind": TWO["kind"], "size": {"label": "size", "type": "regression"}})
    with pytest.raises(DataError, match=r"tasks\.size\.type=regression: the label column 'size' holds 'many'"):
        load_data(wrong, table(size=["many", *("1" for _ in range(19))]))
    with pytest.raises(DataError, match=r"row 7: size: the label is inf"):
        load_data(recipe(), table(size=[float("inf") if row == 7 else 1.0 for row in range(20)]))
    with pytest.raises(DataError, match=r"tasks\.size\.label=sice.*no such column\. Did you mean 'size'"):
        load_data(recipe({"kind": TWO["kind"], "size": {"label": "sice"}}), table())
    strange = DatasetDict({"train": table(), "test": table(kind=["c"] * 20)})
    with pytest.raises(DataError, match=r"labels of the task kind that the train split has not: 'c'"):
        load_data(recipe(), strange)


def test_data_sets_stand_one_after_the_other_and_keep_their_own_splits(tmp_path):
    table(30).select_columns(["text", "kind"]).to_csv(tmp_path / "other.csv", index=False)
    tasks = {"size": TWO["size"], "kind": {"label": "kind", "data": {"dataset": str(tmp_path / "other.csv")}}}
    task = load_data(recipe(tasks), table())
    (first, _), (second, _) = task.mixed
    assert first + second == len(task.train)
    size, kind = task.labels.tasks
    packed = np.asarray(task.train["label"][:])
    assert size.labelled(packed).tolist() == [True] * first + [False] * second
    assert kind.labelled(packed).tolist() == [False] * first + [True] * second
    assert set(task.test["source"]) == {"memory:", str(tmp_path / "other.csv")}


def test_rows_are_drawn_at_the_stated_rates():
    sampler = SourceSampler([60, 20, 20], [1, 1, 2], seed=0)
    assert sampler.rates == (0.25, 0.25, 0.5)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        counts = Counter(0 if row < 60 else 1 if row < 80 else 2 for row in drawn)
        assert (len(drawn), counts) == (100, Counter({0: 25, 1: 25, 2: 50}))


def test_no_row_comes_twice_before_all_of_its_data_set_have_come():
    sampler, seen = SourceSampler([60, 20], [1, 1], seed=0), Counter()
    for epoch in range(3):  # 3 x 40 draws of each
        sampler.set_epoch(epoch)
        seen.update(sampler)
    assert {seen[row] for row in range(60)} == {2}
    assert {seen[row] for row in range(60, 80)} == {6}


def test_the_order_is_that_of_seed_and_epoch_alone():
    sampler = SourceSampler([30, 10], [1, 3], seed=0)
    first = list(sampler)
    assert list(sampler) == first != list(SourceSampler([30, 10], [1, 3], seed=1))
    sampler.set_epoch(1)
    assert list(sampler) != first
    with pytest.raises(UserError, match="too small a weight"):
        SourceSampler([10, 10], [1000, 1], seed=0)


def test_other_data_is_read_as_multi_hot_where_the_finished_model_has_no_names():
    hot = [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    tasks = {"kind": TWO["kind"], "hot": {"label": "hot"}}
    trained = load_data(recipe(tasks), table(hot=[[int(item) for item in hot[row % 2]] for row in range(20)]))
    known = labels_of_model(trained.labels.for_the_model())  # as a saved model tells them
    other = table(4, hot=[[int(item) for item in hot[row % 2]] for row in range(4)])
    test, _ = load_test(recipe(tasks), known, other)
    part = known.tasks[1]
    assert [part.target(row) for row in test["label"][:]] == [hot[0], hot[1], hot[0], hot[1]]


def test_one_column_of_other_data_is_not_taken_for_the_labels_of_two_data_sets(tmp_path):
    table(30).select_columns(["text", "kind"]).to_csv(tmp_path / "other.csv", index=False)
    own = {"label": "kind", "data": {"dataset": str(tmp_path / "other.csv")}}
    tasks = {"topic": TWO["kind"], "mood": own, "size": TWO["size"]}
    known = load_data(recipe(tasks), table()).labels
    with pytest.raises(DataError, match=r"tasks topic and mood were learned from different data sets.*column 'kind'"):
        load_test(recipe(tasks), known, table(6))
    test, _ = load_test(recipe(tasks), known, table(6).remove_columns("kind"))
    assert len(test) == 6
    same = {"topic": TWO["kind"], "again": TWO["kind"]}  # one data set, one column, two tasks: what it says
    assert len(load_test(recipe(same), load_data(recipe(same), table()).labels, table(6))[0]) == 6


def test_other_data_is_read_by_the_columns_of_the_run_where_it_has_them():
    trained_by = recipe().data
    other, known = make_recipe("other:"), load_data(recipe(), table()).labels
    other = other.model_validate({**other.written(), "tasks": TWO})
    notes = table(6, note=[f"note {row}" for row in range(6)]).remove_columns("tags")
    test, _ = load_test(other, known, notes, trained_by=trained_by)
    assert test["text"][:] == notes["text"][:]


def test_a_label_of_a_single_name_is_a_list_still():
    one = recipe({"kind": TWO["kind"], "tags": {"label": "tags"}})
    task = load_data(one, table(tags=[["x"] if row % 2 else [] for row in range(20)]))
    tags = task.labels.tasks[1]
    assert [tags.target([0.0, value]) for value in (0.0, 1.0, float("nan"))] == [[0.0], [1.0], None]
    assert tags.space.decode(tags.target([0.0, 1.0])) == ["x"]
