"""Splits are seeded, stratified, disjoint and complete."""

import numpy as np
import pytest
from data_samples import make_recipe, private_cache  # noqa: F401
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_finetune.data import load_data
from hf_finetune.data.splits import hold_out, subset
from hf_finetune.errors import DataError

class_lists = st.lists(st.integers(0, 5), min_size=2, max_size=200)


@settings(max_examples=200, deadline=None)
@given(classes=class_lists, share=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_hold_out_parts_are_disjoint_complete_and_proportional(classes, share, seed):
    rows = np.arange(len(classes))
    counts = np.bincount(classes)
    if counts.max() == 1:
        with pytest.raises(DataError, match="single row"):
            hold_out(rows, classes, share, seed, "validation share")
        return
    stay, held = hold_out(rows, classes, share, seed, "validation share")
    assert sorted([*stay, *held]) == rows.tolist()
    assert len(stay) and len(held)
    assert (np.diff(held) > 0).all() and (np.diff(stay) > 0).all()
    present = np.flatnonzero(counts)
    assert (np.bincount(np.asarray(classes)[stay], minlength=len(counts))[present] >= 1).all()
    wanted = min(max(1, round(share * len(rows))), len(rows) - 1, int((counts[present] - 1).sum()))
    assert len(held) == wanted


@settings(max_examples=200, deadline=None)
@given(classes=class_lists, limit=st.integers(1, 250), seed=st.integers(0, 2**31))
def test_subset_has_the_size_asked_for_and_every_class_while_it_lasts(classes, limit, seed):
    rows = np.arange(len(classes))
    taken = subset(rows, classes, limit, seed, "train subset")
    assert len(taken) == min(limit, len(rows))
    assert len(set(taken.tolist())) == len(taken)
    if limit >= len(set(classes)):
        assert set(np.asarray(classes)[taken].tolist()) == set(classes)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(20, 80), min_size=2, max_size=6), share=st.floats(0.1, 0.9))
def test_large_classes_get_their_share_to_within_a_row(sizes, share):
    classes = np.repeat(np.arange(len(sizes)), sizes)
    _, held = hold_out(np.arange(len(classes)), classes, share, 0, "test share")
    given_rows = np.bincount(classes[held], minlength=len(sizes))
    assert (np.abs(given_rows - len(held) * np.array(sizes) / len(classes)) <= 1 + 1e-9).all()


def test_the_seed_decides_and_streams_differ():
    rows = np.arange(1000)
    first = subset(rows, None, 100, 7, "train subset")
    assert first.tolist() == subset(rows, None, 100, 7, "train subset").tolist()
    assert first.tolist() != subset(rows, None, 100, 8, "train subset").tolist()
    assert first.tolist() != subset(rows, None, 100, 7, "test subset").tolist()


def test_a_smaller_subset_is_part_of_a_larger_one():
    classes = np.arange(1000) % 10
    small, large = (set(subset(np.arange(1000), classes, n, 0, "train subset").tolist()) for n in (100, 300))
    assert small < large


def test_a_class_of_one_row_is_never_held_out():
    classes = [0] * 50 + [1]
    for seed in range(20):
        _, held = hold_out(np.arange(51), classes, 0.5, seed, "validation share")
        assert 50 not in held


def test_one_row_cannot_be_shared():
    with pytest.raises(DataError, match="1 row"):
        hold_out(np.arange(1), None, 0.1, 0, "validation share")


def test_rows_are_taken_from_those_given():
    rows = np.arange(0, 100, 3)
    classes = np.arange(100) % 2
    assert set(subset(rows, classes, 10, 0, "train subset").tolist()) <= set(rows.tolist())


def texts_of(**sizes):
    made = {
        n: {"text": [f"{n} {i}" for i in range(size)], "label": ["a", "b"] * (size // 2)} for n, size in sizes.items()
    }
    return DatasetDict({name: Dataset.from_dict(columns) for name, columns in made.items()})


@pytest.mark.parametrize(
    ("splits", "data", "train", "test", "said"),
    [
        ({"train": 40, "test": 10}, {}, 36, 10, ""),
        ({"train": 40, "dev": 10}, {}, 36, 10, "'dev' is the test"),
        ({"train": 40, "validation": 10}, {"validation": "validation"}, 32, 8, "20% of train are held out"),
        ({"train": 40, "validation": 10, "dev": 6}, {}, 29, 8, "20% of train are held out"),
        ({"rows": 40}, {"validation": 0.25}, 24, 8, "'rows', the only one"),
    ],
)
def test_splits_that_are_not_named_are_found_and_said(splits, data, train, test, said, capsys):
    task = load_data(make_recipe("memory", **data), texts_of(**splits))
    assert (len(task.train), len(task.test)) == (train, test)
    assert said in capsys.readouterr().out


def test_splits_that_are_named_are_strict():
    with pytest.raises(DataError, match=r"data\.test_split=test: there is no such split"):
        load_data(make_recipe("memory", test_split="test"), texts_of(train=40, dev=10))
    with pytest.raises(DataError, match=r"data\.train_split=train: there is no such split"):
        load_data(make_recipe("memory", train_split="train"), texts_of(rows=40))
