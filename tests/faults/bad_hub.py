"""Data sets of the Hub that are not what the recipe was written for: prepared ones in the cache, without a network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, Features, Value

from .bad_case import Corpus, Given
from .bad_samples import ROWS, text

CORPUS = Corpus("Hub")
_TWO = "2 classes: neg, pos"
_PINNED, _OTHER = "a" * 40, "b" * 40
_numbers = iter(range(10**6))


def _cached(commit: str = _PINNED, names: tuple[str, ...] = ("neg", "pos"), column: str = "label") -> tuple[str, Path]:
    """A data set as `load_dataset` leaves it in its cache: its name, and its folder there."""
    name = f"somebody/set{next(_numbers)}"
    return name, _prepare(name, commit, names, column)


def _prepare(name: str, commit: str, names: tuple[str, ...], column: str) -> Path:
    features = Features({"text": Value("string"), column: ClassLabel(names=list(names))})
    rows = {"text": [text(n) for n in range(ROWS)], column: [n % 2 for n in range(ROWS)]}
    return prepare(name, commit, Dataset.from_dict(rows, features=features))


def prepare(name: str, commit: str, split: Dataset) -> Path:
    """A commit of a data set with this train split, as `load_dataset` leaves it in its cache: its folder there."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___") / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    short = name.rpartition("/")[2]
    kept = split.map(lambda row: row, cache_file_name=str(folder / f"{short}-train.arrow"), keep_in_memory=False)
    info = kept.info.copy()
    info.builder_name = info.dataset_name = short
    info.config_name = "default"
    info.version = datasets.Version("0.0.0")
    info.splits = datasets.SplitDict(
        {"train": datasets.SplitInfo("train", num_examples=len(split), dataset_name=short)}, dataset_name=short
    )
    info.write_to_directory(str(folder))
    return folder


def _given(name: str, **data: Any) -> Given:
    return {"dataset": name, "test_split": None, **data}


@CORPUS(says=_TWO)
def _hub_set_of_the_pinned_commit(folder: Path) -> Given:
    return _given(_cached()[0], revision=_PINNED)


@CORPUS(says=_TWO)
def _hub_set_of_no_pinned_commit(folder: Path) -> Given:
    return _given(_cached(_OTHER)[0])


@CORPUS(refused=f"data.revision={_PINNED}: the cache of HF_HOME holds somebody/set.* of the commit {_OTHER} instead")
def _hub_set_of_another_commit(folder: Path) -> Given:
    return _given(_cached(_OTHER)[0], revision=_PINNED)


@CORPUS(says="2 classes: old, new")
def _hub_set_whose_pinned_commit_is_not_the_newest(folder: Path) -> Given:
    name, old = _cached(names=("old", "new"))
    os.utime(old, (1, 1))
    _prepare(name, _OTHER, ("neg", "pos"), "label")
    return _given(name, revision=_PINNED[:12])


@CORPUS(refused="data.label=label: there is no such column. Did you mean 'labels'")
def _hub_set_whose_label_column_has_another_name(folder: Path) -> Given:
    return _given(_cached(column="labels")[0], label="label")


@CORPUS(says="2 classes: pos, neg")
def _hub_set_whose_classes_have_another_order(folder: Path) -> Given:
    return _given(_cached(names=("pos", "neg"))[0])


@CORPUS(says="1 of 3 classes have no training row: neutral")
def _hub_set_that_has_got_a_class(folder: Path) -> Given:
    return _given(_cached(names=("neg", "pos", "neutral"))[0])


@CORPUS(refused="data.config=german")
def _hub_set_without_the_configuration(folder: Path) -> Given:
    return _given(_cached()[0], config="german")


@CORPUS(refused="data.test_split=test: there is no such split")
def _hub_set_without_the_split(folder: Path) -> Given:
    return {"dataset": _cached()[0], "test_split": "test"}


@CORPUS(refused="data.dataset=somebody/set")
def _hub_set_cut_off(folder: Path) -> Given:
    name, place = _cached()
    (arrow,) = place.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    return _given(name)


@CORPUS(refused="data.dataset=somebody/set")
def _hub_set_with_broken_facts(folder: Path) -> Given:
    name, place = _cached()
    (place / "dataset_info.json").write_text('{"features": {')
    return _given(name)


@CORPUS(refused="data.dataset=somebody/set|no such column|columns")
def _hub_set_whose_facts_name_other_columns(folder: Path) -> Given:
    name, place = _cached()
    facts = json.loads((place / "dataset_info.json").read_text())
    facts["features"]["more"] = {"dtype": "string", "_type": "Value"}
    (place / "dataset_info.json").write_text(json.dumps(facts))
    return _given(name)


@CORPUS(refused="the Hub cannot be reached|not in the cache")
def _hub_set_that_nobody_has(folder: Path) -> Given:
    return _given("somebody/nothing")
